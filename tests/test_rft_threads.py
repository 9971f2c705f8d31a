"""How many threads a trainer rank on CPU has: those that the user's OMP_NUM_THREADS asks for, else its share of the cores."""

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator

from configs.base import ConfigError
from launchers.ray_cluster import threads_asked_for
from rft.setup import num_cores, use_threads


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": ""}, None),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": " 12 "}, 12),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
    ],
)
def test_threads_are_asked_for_in_the_environment(environment: dict[str, str], expected: int | None) -> None:
    assert threads_asked_for(environment) == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ",2"])
def test_what_is_no_number_of_threads_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^OMP_NUM_THREADS={value} in the environment: expected a positive number"):
        threads_asked_for({"OMP_NUM_THREADS": value})


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    """Of one process on CPU; torch's threads are set back."""
    before = torch.get_num_threads()
    yield Accelerator(cpu=True)
    torch.set_num_threads(before)


def test_a_rank_has_the_threads_that_were_asked_for(accelerator: Accelerator) -> None:
    """More than there are cores, too."""
    use_threads(accelerator, num_cores() + 1)
    assert torch.get_num_threads() == num_cores() + 1


def test_a_rank_has_its_cores_where_nothing_was_asked_for(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Ray wrote into its environment."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(num_cores() + 1))
    torch.set_num_threads(num_cores() + 1)
    use_threads(accelerator, None)
    assert torch.get_num_threads() == num_cores()
