"""Which sample comes when: shares, epochs, determinism, and which rank takes it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.data import DataConfig
from configs.sft import SFTConfig
from configs.sources import JsonlSource, MixturePart, MixtureSource
from data.mixture import Group, draw_order, sample_groups
from data.types import FrameSpan, GroundingSample, Task

SOURCE = JsonlSource(root="unread")


def make_samples(source: str = "", **counts: int) -> list[GroundingSample]:
    """That many samples of each task, in turn."""
    base = GroundingSample(
        sample_id="",
        task="temporal",
        query="the red circle",
        video_path="v.mp4",
        fps=8.0,
        width=64,
        height=64,
        clip=FrameSpan(0, 64),
        span=FrameSpan(0, 1),
        source=source,
    )
    extra: dict[Task, dict[str, object]] = {
        "temporal": {},
        "stvg": {"boxes_xyxy_px": (None,)},
        "rec": {"boxes_xyxy_px": (None,), "clip": FrameSpan(0, 1)},
        "qa": {"options": ("x", "y"), "choice": "A"},
    }
    return [
        dataclasses.replace(base, task=task, sample_id=f"{task}-{i}", **extra[task])  # type: ignore[index]
        for task, count in counts.items()
        for i in range(count)
    ]


def groups_of(samples: list[GroundingSample], weights: dict[Task, float]) -> list[Group]:
    return sample_groups(samples, DataConfig(source=SOURCE, tasks=weights))


def mixture(tasks: dict[Task, float], **parts: MixturePart) -> DataConfig:
    return DataConfig(source=MixtureSource(parts=parts), tasks=tasks)


def part(weight: float, tasks: dict[Task, float] | None = None) -> MixturePart:
    return MixturePart(source=SOURCE, weight=weight, tasks=tasks)


def tasks_of(samples: list[GroundingSample], order: np.ndarray) -> np.ndarray:
    return np.array([samples[i].task for i in order])


def test_shares_follow_the_weights() -> None:
    """Weights 3 : 1 give shares 0.75 and 0.25; over 4000 draws the standard deviation is sqrt(.75 * .25 / 4000) =
    0.0068, so 0.03 is more than 4 of them. How many samples a task has plays no part."""
    samples = make_samples(stvg=5, qa=50)
    order = draw_order(groups_of(samples, {"stvg": 3.0, "qa": 1.0}), total=4000, seed=0)
    assert abs((tasks_of(samples, order) == "stvg").mean() - 0.75) < 0.03


def test_each_sample_comes_once_per_epoch() -> None:
    """Within a task, every stretch of n entries from a multiple of n on is a permutation of its n samples."""
    samples = make_samples(stvg=7, qa=3)
    order = draw_order(groups_of(samples, {"stvg": 1.0, "qa": 1.0}), total=100, seed=3)
    for task, count in (("stvg", 7), ("qa", 3)):
        of_task = order[tasks_of(samples, order) == task]
        assert len(of_task) >= 3 * count
        expected = sorted(i for i, sample in enumerate(samples) if sample.task == task)
        for start in range(0, len(of_task) - count + 1, count):
            assert sorted(of_task[start : start + count]) == expected


def test_epochs_are_shuffled_anew() -> None:
    order = draw_order(groups_of(make_samples(stvg=20), {"stvg": 1.0}), total=60, seed=0).reshape(3, 20)
    assert len({tuple(epoch) for epoch in order}) == 3


def test_order_is_a_function_of_the_seed() -> None:
    groups = groups_of(make_samples(stvg=10, temporal=10), {"stvg": 1.0, "temporal": 1.0})
    first = draw_order(groups, total=50, seed=1)
    np.testing.assert_array_equal(first, draw_order(groups, total=50, seed=1))
    assert (first != draw_order(groups, total=50, seed=2)).any()


@pytest.mark.parametrize(
    ("counts", "weights", "seed", "recorded"),
    [
        (
            {"stvg": 4, "temporal": 2, "rec": 3, "qa": 2},
            {"stvg": 0.7, "temporal": 0.1, "rec": 0.1, "qa": 0.1},
            0,
            [2, 1, 3, 0, 0, 4, 10, 5, 6, 9, 4, 2, 7, 3, 1, 1, 2, 8, 0, 8, 6, 7, 3, 3, 1, 2, 0, 1, 2, 3, 0, 3],
        ),
        ({"stvg": 5}, {"stvg": 1.0}, 3, [3, 0, 1, 4, 2, 1, 0, 4, 3, 2, 3, 2, 1, 4, 0, 4]),
        (
            {"qa": 3, "stvg": 4},
            {"stvg": 1.0, "qa": 2.0, "rec": 1.0},
            7,
            [0, 1, 2, 1, 2, 0, 1, 2, 4, 3, 5, 0, 6, 2, 0, 6, 3, 1, 1, 0],
        ),
    ],
)
def test_the_order_of_one_source_stays(
    counts: dict[str, int], weights: dict[Task, float], seed: int, recorded: list[int]
) -> None:
    """Recorded from the first version of `draw_order`: published results and resumed runs depend on it."""
    groups = groups_of(make_samples(**counts), weights)
    assert draw_order(groups, total=len(recorded), seed=seed).tolist() == recorded


@pytest.mark.parametrize("weights", [{"stvg": 1.0, "qa": 0.0}, {"stvg": 1.0}, {"stvg": 1.0, "rec": 1.0}])
def test_a_task_without_weight_or_samples_is_left_out(weights: dict[Task, float]) -> None:
    """Zero weight, no weight, or no samples (rec): all positions go to stvg."""
    samples = make_samples(stvg=4, qa=4)
    order = draw_order(groups_of(samples, weights), total=40, seed=0)
    assert len(order) == 40
    assert set(tasks_of(samples, order)) == {"stvg"}


@pytest.mark.parametrize("weights", [{}, {"stvg": 0.0}, {"rec": 1.0}])
def test_nothing_left_is_an_error(weights: dict[Task, float]) -> None:
    with pytest.raises(ValueError, match="no sample of a task in"):
        groups_of(make_samples(stvg=2), weights)


def test_a_run_of_no_steps_is_empty() -> None:
    groups = groups_of(make_samples(stvg=2), {"stvg": 1.0})
    assert len(draw_order(groups, total=0, seed=0)) == len(draw_order(groups, total=0, seed=0, per_task=4)) == 0


ALL_TASKS: dict[Task, float] = {"stvg": 1.0, "temporal": 1.0, "rec": 1.0, "qa": 1.0}
TWO_PARTS = make_samples("a", stvg=3, temporal=4) + make_samples("b", stvg=5, rec=2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # Part a is drawn 3 times as often as b; each splits evenly between its two tasks.
        (
            mixture(ALL_TASKS, a=part(3), b=part(1)),
            {"a/stvg": 1.5, "a/temporal": 1.5, "b/stvg": 0.5, "b/rec": 0.5},
        ),
        # The part's own weights 1 : 4 divide its 2.
        (
            mixture(ALL_TASKS, a=part(2, {"stvg": 1, "temporal": 4}), b=part(1, {"rec": 9})),
            {"a/stvg": 0.4, "a/temporal": 1.6, "b/rec": 1.0},
        ),
        # data.tasks takes temporal away: all of part a's 2 is stvg's.
        (mixture({"stvg": 0.1}, a=part(2, {"stvg": 1, "temporal": 4}), b=part(1)), {"a/stvg": 2.0, "b/stvg": 1.0}),
        (mixture(ALL_TASKS, a=part(0), b=part(1, {"stvg": 1})), {"b/stvg": 1.0}),
        # A part that the split does not have.
        (mixture(ALL_TASKS, a=part(1, {"stvg": 1}), c=part(7)), {"a/stvg": 1.0}),
    ],
)
def test_weights_of_a_mixture(data: DataConfig, expected: dict[str, float]) -> None:
    assert {group.name: group.weight for group in sample_groups(TWO_PARTS, data)} == pytest.approx(expected)


def test_groups_of_a_mixture_hold_their_samples() -> None:
    """Samples 0-2 are a's stvg, 3-6 its temporal, 7-11 b's stvg, 12-13 its rec."""
    groups = sample_groups(TWO_PARTS, mixture(ALL_TASKS, a=part(1), b=part(1)))
    held = {group.name: group.indices.tolist() for group in groups}
    assert held == {
        "a/stvg": [0, 1, 2],
        "a/temporal": [3, 4, 5, 6],
        "b/stvg": [7, 8, 9, 10, 11],
        "b/rec": [12, 13],
    }


@st.composite
def some_groups(draw: st.DrawFn) -> list[Group]:
    """1 to 5 groups of 1 to 6 samples."""
    groups, start = [], 0
    for number in range(draw(st.integers(1, 5))):
        count, task = draw(st.integers(1, 6)), draw(st.sampled_from(list(ALL_TASKS)))
        weight = draw(st.floats(0.05, 10))
        groups.append(Group(f"part{number}/{task}", task, weight, np.arange(start, start + count)))
        start += count
    return groups


per_task_or_mixed = st.none() | st.integers(1, 7)


@given(
    groups=some_groups(),
    total=st.integers(0, 80),
    shorter=st.integers(0, 80),
    seed=st.integers(0, 99),
    per_task=per_task_or_mixed,
)
def test_a_longer_run_begins_with_a_shorter_one(
    groups: list[Group], total: int, shorter: int, seed: int, per_task: int | None
) -> None:
    long, short = (draw_order(groups, total=n, seed=seed, per_task=per_task) for n in (total + shorter, shorter))
    np.testing.assert_array_equal(long[:shorter], short)


@given(groups=some_groups(), total=st.integers(0, 80), seed=st.integers(0, 99), per_task=per_task_or_mixed)
def test_a_group_is_used_up_before_it_comes_again(
    groups: list[Group], total: int, seed: int, per_task: int | None
) -> None:
    order = draw_order(groups, total=total, seed=seed, per_task=per_task)
    assert set(order.tolist()) <= {i for group in groups for i in group.indices.tolist()}
    for group in groups:
        count = len(group.indices)
        drawn = order[np.isin(order, group.indices)]
        for start in range(0, len(drawn), count):
            epoch = drawn[start : start + count].tolist()
            assert len(set(epoch)) == len(epoch)


@given(groups=some_groups(), steps=st.integers(1, 12), size=st.integers(1, 7), seed=st.integers(0, 99))
def test_a_step_of_per_task_batches_has_one_task(groups: list[Group], steps: int, size: int, seed: int) -> None:
    task_of = {i: group.task for group in groups for i in group.indices.tolist()}
    order = draw_order(groups, total=steps * size, seed=seed, per_task=size).reshape(steps, size)
    assert all(len({task_of[i] for i in step}) == 1 for step in order.tolist())


def test_shares_of_per_task_batches() -> None:
    """stvg weighs 1 + 2 of 4, so 3 of 4 steps are its; of those positions 2 of 3 are part b's. 2000 steps of 4: the
    standard deviations are sqrt(.75 * .25 / 2000) = 0.0097 and sqrt(.22 / 6000) = 0.0061."""
    groups = [
        Group("a/stvg", "stvg", 1.0, np.arange(0, 5)),
        Group("b/stvg", "stvg", 2.0, np.arange(5, 9)),
        Group("b/qa", "qa", 1.0, np.arange(9, 20)),
    ]
    order = draw_order(groups, total=8000, seed=0, per_task=4)
    is_stvg = order < 9
    assert abs(is_stvg.mean() - 0.75) < 0.04
    assert abs((order[is_stvg] >= 5).mean() - 2 / 3) < 0.03


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (4, 0), (2, 2)])
def test_ranks_share_a_step_without_overlap(world_size: int, num_workers: int, tmp_path: Path) -> None:
    """What accelerate makes of the trainer's sequential sampler: the micro-batches of step s on all ranks together
    are positions s * n, ..., s * n + n - 1, each once."""
    from accelerate.data_loader import prepare_data_loader
    from torch.utils.data import DataLoader, SequentialSampler

    from sft.train import training_arguments

    config = SFTConfig.model_validate({"run": {"out": str(tmp_path)}, "data": {"source": SOURCE}})
    arguments = training_arguments(config)
    assert arguments.train_sampling_strategy == "sequential"
    settings = arguments.accelerator_config
    batch, accumulation, steps = 3, 2, 4
    size = batch * accumulation * world_size
    positions = list(range(steps * size))
    per_rank = []
    for rank in range(world_size):
        plain = DataLoader(
            positions, batch_size=batch, sampler=SequentialSampler(positions), num_workers=num_workers, collate_fn=list
        )
        sharded = prepare_data_loader(
            plain,
            num_processes=world_size,
            process_index=rank,
            split_batches=settings.split_batches,
            dispatch_batches=settings.dispatch_batches,
            even_batches=settings.even_batches,
        )
        per_rank.append(np.array(list(sharded)).reshape(steps, accumulation * batch))
    for step in range(steps):
        taken = np.concatenate([rank[step] for rank in per_rank])
        np.testing.assert_array_equal(np.sort(taken), np.arange(step * size, (step + 1) * size))
