import pytest
import torch

from rft.advantages import TASKS, RunningStd, batch_std, group_advantages, group_std, has_signal, split_by_task


def test_group_std_by_hand() -> None:
    """Group 1, 0, 0, 1: mean 1/2, sample variance 4 x 1/4 / 3 = 1/3, std 0.57735; +-0.5 / 0.57745 = +-0.86587."""
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    advantages_PG = group_advantages(rewards_PG, scale=group_std(rewards_PG))
    expected = torch.tensor([[0.86587, -0.86587, -0.86587, 0.86587]])
    torch.testing.assert_close(advantages_PG, expected, atol=1e-5, rtol=0)


def test_equal_rewards_teach_nothing() -> None:
    """0.98 eight times: in float32 the mean is an ulp off, and / 1e-4 would make a signal of it."""
    rewards_PG = torch.full((3, 15), 0.98)
    assert group_advantages(rewards_PG, scale=group_std(rewards_PG)).abs().max() < 1e-6


def test_one_scale_for_all_groups() -> None:
    """Divided by 0.5: the easy group keeps its small spread beside the hard one's."""
    rewards_PG = torch.tensor([[0.9, 1.0], [0.0, 1.0]])
    got = group_advantages(rewards_PG, scale=torch.tensor([[0.5]]))
    torch.testing.assert_close(got, torch.tensor([[-0.1, 0.1], [-1.0, 1.0]]))


def test_batch_std_by_hand() -> None:
    """0, 0, 1, 1: sample variance 1/3."""
    torch.testing.assert_close(
        batch_std(torch.tensor([[0.0, 1.0], [0.0, 1.0]])), torch.tensor([[(1 / 3) ** 0.5 + 1e-4]]).double()
    )


def test_running_std_of_each_task() -> None:
    """0.4 at first; stvg of std 0.5: 0.9 x 0.4 + 0.1 x 0.5 = 0.41; qa of std 0.1: 0.37; rec is not in the step."""
    running = RunningStd(initial=0.4, decay=0.9, floor=0.05)
    assert running.scale("stvg") == 0.4
    running.update({"stvg": torch.tensor([0.0, 1.0]), "qa": torch.tensor([0.2, 0.4, 0.2, 0.4])})
    scales = [running.scale(task) for task in ("stvg", "qa", "rec")]
    assert scales == pytest.approx([0.41, 0.37, 0.4], abs=1e-8)


def test_running_std_is_never_below_its_floor() -> None:
    running = RunningStd(initial=0.4, decay=0.9, floor=0.05)
    for _ in range(100):
        running.update({"stvg": torch.tensor([1.0, 1.0])})
    assert running.scale("stvg") == 0.05


def test_rewards_are_split_by_task() -> None:
    rewards, numbers = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([TASKS.index(t) for t in ("qa", "stvg", "qa")])
    split = {task: values.tolist() for task, values in split_by_task(rewards, numbers.float()).items()}
    assert split == {"stvg": pytest.approx([0.2]), "qa": pytest.approx([0.1, 0.3])}


@pytest.mark.parametrize(
    ("terms_GK", "outcome", "expected"),
    [
        ([[1.0, 0.5, 0.2], [1.0, 0.5, 0.2]], ["temporal", "viou"], False),
        ([[1.0, 0.5, 0.2], [0.0, 0.5, 0.2]], ["temporal", "viou"], False),
        ([[1.0, 0.5, 0.2], [1.0, 0.5, 0.3]], ["temporal", "viou"], True),
        ([[1.0, 0.5, 0.2], [1.0, 0.5, 0.3]], ["temporal"], False),
        ([[1.0, 0.5, 0.2], [1.0, 0.5, 0.2 + 1e-7]], ["viou"], False),
        ([[1.0, 0.5, 0.2], [0.0, 0.5, 0.2]], ["format"], True),
        # The total is the same, what is right is not.
        ([[0.0, 0.7, 0.1], [0.0, 0.1, 0.7]], ["temporal", "viou"], True),
    ],
)
def test_signal_is_looked_for_in_outcome_terms(terms_GK: list, outcome: list[str], expected: bool) -> None:
    names = ("format", "temporal", "viou")
    assert has_signal(torch.tensor([terms_GK]), names, outcome).tolist() == [expected]
