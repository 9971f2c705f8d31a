"""How a step is cut into micro-batches: what is in them, what they cost, and that the gradient does not notice."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Tiny

from data.batching import by_length, costs, cut, drawn, fullest_rank, padding_share, prompt_lengths

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=9).map(lambda lengths: sorted(lengths, reverse=True))


@pytest.mark.parametrize(
    ("lengths", "num_parts", "sizes", "largest"),
    [
        # 10 x 1 and 5 x 2 cost the same; any other cut has a part of at least 15.
        ([10, 5, 5], 2, [1, 2], 10),
        # Even parts would cost 200, 100, 20 and 20.
        ([100, 50, 10, 10, 10, 10, 10, 10], 4, [1, 1, 5, 1], 100),
        ([7, 7, 7, 7], 2, [2, 2], 14),
        ([9, 8, 7], 3, [1, 1, 1], 9),
        # One part would do at the same cost as the first row alone; none may be empty.
        ([30, 1, 1, 1], 3, [1, 1, 2], 30),
    ],
)
def test_cuts_by_hand(lengths: list[int], num_parts: int, sizes: list[int], largest: int) -> None:
    found = cut(lengths, num_parts)
    starts = np.cumsum([0, *found[:-1]])
    assert max(size * lengths[start] for size, start in zip(found, starts, strict=True)) == largest
    assert sorted(found) == sorted(sizes) and sum(found) == len(lengths)


@given(LENGTHS, st.data())
def test_no_contiguous_cut_has_a_smaller_largest_cost(lengths: list[int], data: st.DataObject) -> None:
    """Against all of them."""
    num_parts = data.draw(st.integers(1, len(lengths)))

    def largest(borders: tuple[int, ...]) -> int:
        return max((end - start) * lengths[start] for start, end in pairwise((0, *borders, len(lengths))))

    sizes = cut(lengths, num_parts)
    assert len(sizes) == num_parts and min(sizes) >= 1 and sum(sizes) == len(lengths)
    all_cuts = combinations(range(1, len(lengths)), num_parts - 1)
    assert largest(tuple(np.cumsum(sizes)[:-1].tolist())) == min(map(largest, all_cuts))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 10**6))
def test_every_step_keeps_its_rows_and_its_bounds(
    rows: int, ranks: int, accumulation: int, num_steps: int, seed: int
) -> None:
    """A permutation within each step; no micro-batch dearer than `rows` of the longest; ranks within one micro-batch's
    spread of each other."""
    per_step, per_rank = rows * ranks * accumulation, ranks * accumulation
    lengths = np.random.default_rng(seed).integers(1, 500, per_step * num_steps)
    batches = by_length(lengths, rows=rows, ranks=ranks, accumulation=accumulation)
    tokens = costs(batches, lengths)
    for step in range(num_steps):
        ours = slice(step * per_rank, (step + 1) * per_rank)
        positions = np.arange(step * per_step, (step + 1) * per_step)
        assert sorted(np.concatenate(batches[ours]).tolist()) == positions.tolist()
        assert tokens[ours].max() <= rows * lengths[positions].max()
        by_rank = tokens[ours].reshape(accumulation, ranks).sum(axis=0)
        assert by_rank.max() - by_rank.min() <= tokens[ours].max() - tokens[ours].min()


def test_a_step_by_hand() -> None:
    """Two ranks, two micro-batches each, mean of two rows. Sorted: 100, 50, 10 six times. With parts of 1, 1, 5, 1 rows
    the costs are 100, 50, 50, 10: one rank gets 100 + 10, the other 50 + 50."""
    lengths = np.array([10, 10, 100, 10, 50, 10, 10, 10])
    batches = by_length(lengths, rows=2, ranks=2, accumulation=2)
    assert costs(batches, lengths).tolist() == [100, 50, 10, 50]
    assert batches[0].tolist() == [2]
    # Drawn: (10, 10), (100, 10), (50, 10), (10, 10) cost 20, 200, 100, 20, of which 210 are rows.
    before = drawn(8, 2)
    assert padding_share(before, lengths) == pytest.approx(1 - 210 / 340)
    assert padding_share(batches, lengths) == pytest.approx(0)
    # Ranks compute 20 + 100 and 200 + 20; then 110 and 100. An even share of the rows is 105.
    assert fullest_rank(before, lengths, ranks=2, accumulation=2) == pytest.approx(220 / 105)
    assert fullest_rank(batches, lengths, ranks=2, accumulation=2) == pytest.approx(110 / 105)


def test_a_longer_run_begins_with_a_shorter_one() -> None:
    """A function of the positions alone, step by step."""
    lengths = np.random.default_rng(0).integers(1, 500, 96)
    short, long = (by_length(lengths[:n], rows=4, ranks=2, accumulation=3) for n in (48, 96))
    assert [batch.tolist() for batch in long[: len(short)]] == [batch.tolist() for batch in short]


def test_lengths_are_those_of_the_prompts(tiny: Tiny) -> None:
    """Positions in any order, repeated; at most the longest timestamp of a clip above the encoded prompt."""
    samples = [tiny.of_task(task)[0] for task in ("stvg", "temporal", "rec", "qa")]
    order = np.array([2, 0, 3, 0, 1])
    lengths = prompt_lengths(samples, order, tiny.encoder.budget)
    encoded = [len(tiny.encoder(samples[i]).input_ids_L) for i in order]
    assert lengths.shape == (5,) and lengths[1] == lengths[3]
    assert all(0 <= bound - length <= 16 for bound, length in zip(lengths, encoded, strict=True))
    assert lengths[0] < lengths[1]  # an image and a video
