"""Which rows of a step share a micro-batch: neighbours in length, so that little is padding, and as many of them as make all
micro-batches about equally dear.

The rows of a step, and with global losses its gradient, are the same however it is cut; only what a rank computes changes. A
micro-batch costs rows x longest row, in tokens. Contiguous cuts of the rows sorted by length, with the smallest
largest cost, are found by bisection over that cost. Like transformers' BatchRebalanceSampler (trainer_pt_utils.py, 5.17) rows
are few where they are long; it balances costs iteratively, adds attention's square, and draws the rows itself.

Shapes: P positions of a run, N rows of a step, S steps, R ranks.
"""

import logging
from collections.abc import Sequence

import numpy as np

from data.token_budget import TokenBudget
from data.types import GroundingSample

logger = logging.getLogger("data.batching")
MicroBatches = list[np.ndarray]
"""Positions of each, in the order in which ranks take them: micro-batch 0 of ranks 0, 1, ..., then micro-batch 1."""


def prompt_lengths(samples: Sequence[GroundingSample], order_P: np.ndarray, budget: TokenBudget) -> np.ndarray:
    """Tokens of the prompt at each position, from above (`TokenBudget.num_tokens`); no video is read. The answer and the
    query slots, which are few, are left out. Raises PromptError."""
    used = np.unique(order_P)
    tokens = [budget.num_tokens(samples[i], budget.plan(samples[i]).num_frames) for i in used]
    return np.array(tokens)[np.searchsorted(used, order_P)]


def drawn(num_positions: int, rows: int) -> MicroBatches:
    """`rows` positions each, as they were drawn."""
    return list(np.arange(num_positions).reshape(-1, rows))


def by_length(lengths_P: np.ndarray, *, rows: int, ranks: int, accumulation: int) -> MicroBatches:
    """Micro-batches of a whole run. rows: the mean number in each; a step has rows x ranks x accumulation positions.

    None costs more than `rows` rows of the step's longest, and the costs of two ranks of a step differ by no more than
    those of its dearest and its cheapest micro-batch do.
    """
    per_step = rows * ranks * accumulation
    steps = lengths_P.reshape(-1, per_step)
    return [
        per_step * number + micro_batch
        for number, lengths_N in enumerate(steps)
        for micro_batch in _of_step(lengths_N, ranks=ranks, accumulation=accumulation)
    ]


def _of_step(lengths_N: np.ndarray, *, ranks: int, accumulation: int) -> MicroBatches:
    """Ranks take turns at being first: the dearest micro-batch of one goes with the cheapest of the next turn."""
    longest_first_N = np.argsort(-lengths_N, kind="stable")
    sizes = cut(lengths_N[longest_first_N].tolist(), ranks * accumulation)
    parts = np.split(longest_first_N, np.cumsum(sizes)[:-1])
    parts.sort(key=lambda part: -len(part) * lengths_N[part[0]])
    turns = [parts[first : first + ranks] for first in range(0, len(parts), ranks)]
    return [part for number, turn in enumerate(turns) for part in (turn[::-1] if number % 2 else turn)]


def cut(lengths: Sequence[int], num_parts: int) -> list[int]:
    """Sizes of `num_parts` contiguous parts, none empty, whose largest cost is as small as can be. lengths: descending."""
    lowest, highest = lengths[0], lengths[0] * -(-len(lengths) // num_parts)
    while lowest < highest:
        middle = (lowest + highest) // 2
        if len(filled(lengths, middle)) <= num_parts:
            highest = middle
        else:
            lowest = middle + 1
    sizes = filled(lengths, lowest)
    while len(sizes) < num_parts:
        dearest = max(range(len(sizes)), key=lambda i: (sizes[i] > 1, sizes[i] * lengths[sum(sizes[:i])]))
        half = sizes[dearest] // 2
        sizes[dearest : dearest + 1] = [half, sizes[dearest] - half]
    return sizes


def filled(lengths: Sequence[int], limit: int) -> list[int]:
    """Sizes of the fewest contiguous parts of a cost of at most `limit`, which is at least lengths[0]. lengths: descending."""
    sizes, first = [], 0
    while first < len(lengths):
        sizes.append(min(limit // lengths[first], len(lengths) - first))
        first += sizes[-1]
    return sizes


def padding_share(batches: MicroBatches, lengths_P: np.ndarray) -> float:
    """Padding among all tokens that are computed."""
    return 1 - float(lengths_P.sum()) / int(costs(batches, lengths_P).sum())


def fullest_rank(batches: MicroBatches, lengths_P: np.ndarray, *, ranks: int, accumulation: int) -> float:
    """Tokens that the fullest rank of a step computes over an even share of its rows' tokens; the mean over steps.

    1 at best: the others wait for that rank, whether it has padding or rows.
    """
    costs_SR = costs(batches, lengths_P).reshape(-1, accumulation, ranks).sum(axis=1)
    shares_S = lengths_P.reshape(len(costs_SR), -1).sum(axis=1) / ranks
    return float((costs_SR.max(axis=1) / shares_S).mean())


def costs(batches: MicroBatches, lengths_P: np.ndarray) -> np.ndarray:
    """Tokens of each micro-batch, its padding included."""
    return np.array([len(batch) * int(lengths_P[batch].max()) for batch in batches])


def balanced(lengths_P: np.ndarray, *, rows: int, ranks: int, accumulation: int) -> MicroBatches:
    """`by_length`, with what it saves in the log."""
    before, after = drawn(len(lengths_P), rows), by_length(lengths_P, rows=rows, ranks=ranks, accumulation=accumulation)
    share, load = (
        [padding_share(batches, lengths_P) for batches in (before, after)],
        [fullest_rank(batches, lengths_P, ranks=ranks, accumulation=accumulation) for batches in (before, after)],
    )
    logger.info(
        "micro-batches by length: %.1f %% of the tokens are padding (as drawn: %.1f %%); the fullest rank of a step computes "
        "%.2f times an even share of its rows (as drawn: %.2f); %d to %d rows of %d to %d tokens",
        100 * share[1], 100 * share[0], load[1], load[0],
        min(map(len, after)), max(map(len, after)), lengths_P.min(), lengths_P.max(),
    )  # fmt: skip
    return after
