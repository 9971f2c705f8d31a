"""The loops that rewards are measured against give the same rewards."""

from benchmarks.rewards import measure


def test_the_loops_give_our_rewards() -> None:
    """4 groups with 4 answers that are none, of 12 frames each."""
    result = measure(rollouts=32, frames=12, repeats=1)
    assert result["max_abs_diff"] <= 1e-6
