"""Which groups share a micro-batch under a token budget, by hand."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Tiny

from data.collate import QueryCount
from evaluation.vllm_engine import Rollout
from rft.group_cuts import cut_groups, fewest_parts, padded_tokens, tokens_of_groups
from rft.resampling import RolledOut


@pytest.mark.parametrize(("num_queries", "slots"), [(4, 4), ("per_frame", 16)])
def test_tokens_of_a_group(num_queries: QueryCount, slots: int, tiny: Tiny) -> None:
    """Answers of 3 and 5 tokens on 16 frames: two rows of the longer one."""
    sample = tiny.of_task("stvg")[0]
    prompt = tiny.encoder(sample)
    group = [Rollout([1] * length, [0.0] * length, False, 0) for length in (3, 5)]
    tokens_P2 = tokens_of_groups([RolledOut(sample, prompt, group)], num_queries)
    assert tokens_P2.tolist() == [[len(prompt.input_ids_L), 2 * (5 + slots)]]


@pytest.mark.parametrize(
    ("tokens", "budget", "parts", "padded"),
    [
        # Two of the three of 10 fit into 24; the one of 6 goes with the last.
        ([(4, 6), (4, 6), (4, 6), (2, 4)], 24, [[0, 1], [2, 3]], [20, 20]),
        # The longest is over the budget and alone; the two others fit together.
        ([(2, 4), (50, 50), (2, 4)], 12, [[1], [0, 2]], [100, 12]),
        # All of them are: as many micro-batches as groups.
        ([(9, 9), (8, 8)], 10, [[0], [1]], [18, 16]),
        # A long prompt beside a long answer: together they would have 2 x (10 + 10).
        ([(10, 1), (1, 10)], 22, [[0], [1]], [11, 11]),
        ([(10, 1), (1, 10)], 40, [[0, 1]], [40]),
    ],
)
def test_cuts_by_hand(tokens: list, budget: int, parts: list, padded: list) -> None:
    tokens_P2 = np.array(tokens)
    found = cut_groups(tokens_P2, budget, fewest_parts(tokens_P2, budget))
    assert [sorted(part.tolist()) for part in found] == parts
    assert padded_tokens(found, tokens_P2) == padded


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=9), st.data())
def test_every_group_once_and_none_over_the_budget(tokens: list, data: st.DataObject) -> None:
    """Also where another rank needs more micro-batches; groups that are over it are alone; longer ones come first."""
    tokens_P2, budget = np.array(tokens), data.draw(st.integers(1, 1500))
    fewest = fewest_parts(tokens_P2, budget)
    number = data.draw(st.integers(fewest, len(tokens)))
    parts = cut_groups(tokens_P2, budget, number)
    assert len(parts) == number and all(len(part) > 0 for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(tokens)))
    for part, padded in zip(parts, padded_tokens(parts, tokens_P2), strict=True):
        assert padded <= budget or len(part) == 1
    totals = tokens_P2.sum(axis=1)
    assert all(totals[a].min() >= totals[b].max() for a, b in pairwise(parts))
