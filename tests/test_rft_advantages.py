import pytest
import torch
from test_rewards import SAMPLE, SHIFTED_BOX, TRUE_BOX
from test_rewards_tasks import IMAGE
from test_rewards_tasks import scored as scored_tasks

from configs.rewards import RewardConfig
from data.answers import SpanSec
from data.tubes import tube_batch
from rewards.composer import RewardComposer
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


def test_a_nan_is_a_signal() -> None:
    """Or another group would be drawn in place of one whose reward is broken."""
    assert has_signal(torch.tensor([[[0.5], [float("nan")]]]), ("viou",), ["viou"]).tolist() == [True]


FAR_BOX = torch.tensor([0.8, 0.7, 1.0, 1.0])
FULL_FRAME = torch.tensor([0.0, 0.0, 1.0, 1.0])


@pytest.mark.parametrize(("clips", "expected"), [({}, True), ({"spatial": (0.0, 1.0)}, False)])
def test_what_a_clip_cuts_off_is_no_signal(clips: dict, expected: bool) -> None:
    """Both boxes have a negative `spatial` (a box elsewhere -2.88, the full frame .08 - 1.4): clipped, both earn 0."""
    frames = torch.arange(40).expand(2, 40)
    boxes = torch.stack([FAR_BOX, FULL_FRAME])[:, None].expand(2, 40, 4)
    tubes = tube_batch([SAMPLE] * 2, [SpanSec(1.0, 3.0)] * 2, boxes, frames, torch.ones(2, 40, dtype=torch.bool))
    weights = {"format": 0.1, "temporal": 1.0, "viou": 0.0, "spatial": 1.0}
    got = RewardComposer(RewardConfig.model_validate({"weights": weights, "clips": clips}))(tubes)
    assert (got.terms_BK[:, 3] < -0.5).all()
    assert has_signal(got.paid_BK[None], got.names, ["temporal", "spatial"]).tolist() == [expected]
    assert (float(got.total_B.std()) > 0) == expected


def test_signal_is_looked_for_in_what_the_groups_task_pays() -> None:
    """A true box and one of IoU 1/3: rec is paid for it, stvg for its interval alone, which is right in both answers."""
    boxes = (TRUE_BOX, SHIFTED_BOX)
    rows = [(SAMPLE, "<time> 1.0 - 3.0 </time>", box) for box in boxes] + [
        (IMAGE, "<box> </box>", box) for box in boxes
    ]
    got = scored_tasks(rows, weights={"viou": 0.0})
    paid_PGK = got.paid_BK.unflatten(0, (2, 2))
    assert has_signal(paid_PGK, got.names, ["temporal", "viou"]).tolist() == [False, True]
    assert got.total_B.reshape(2, 2).std(dim=1).tolist() == [0.0, pytest.approx(4 / 3 / 2**0.5)]
