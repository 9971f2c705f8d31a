import torch

from rft.advantages import RunningStd, batch_std, group_advantages, group_std


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


def test_running_std() -> None:
    """0.4 at first; a batch of std 0.5: 0.9 x 0.4 + 0.1 x 0.5 = 0.41; never below the floor."""
    running = RunningStd(initial=0.4, decay=0.9, floor=0.05)
    assert running.scale == 0.4
    running.update(torch.tensor([0.0, 1.0]))
    assert abs(running.scale - 0.41) < 1e-12
    for _ in range(100):
        running.update(torch.tensor([1.0, 1.0]))
    assert running.scale == 0.05
