"""Which groups of a step share a micro-batch under a token budget: neighbours in length, so that little is padding.

A group's prompt goes through the LLM once, and its completions with their query slots behind it (model/prompt_pass.py). So a
micro-batch computes, with its padding, groups x (longest prompt + G x longest completion) tokens. Where gradient checkpointing
repeats the prompt instead (`is_packed` there says where), it computes more than are counted here.

Cuts are those of data/batching.py, which SFT has. Shapes: P groups, each with the tokens of its prompt and of its rows: [P, 2].
"""

from collections.abc import Sequence

import numpy as np

from data.batching import cut, filled
from data.collate import QueryCount
from rft.resampling import RolledOut


def tokens_of_groups(rolled: Sequence[RolledOut], num_queries: QueryCount) -> np.ndarray:
    """[P, 2]: of each prompt, and of its completions, padded to the longest.

    Where the number of query slots follows from the answer, as many are counted as there are frames.
    """
    return np.array([_tokens(one, num_queries) for one in rolled])


def _tokens(one: RolledOut, num_queries: QueryCount) -> tuple[int, int]:
    slots = len(one.prompt.clip.frame_idx_T) if num_queries == "per_frame" else num_queries
    longest = max(len(rollout.completion_ids) for rollout in one.group) + slots
    return len(one.prompt.input_ids_L), len(one.group) * longest


def fewest_parts(tokens_P2: np.ndarray, budget: int) -> int:
    """Micro-batches that a step takes at least."""
    _, bounds_P = _longest_first(tokens_P2)
    alone = int((bounds_P > budget).sum())
    return alone + len(filled(bounds_P[alone:].tolist(), budget))


def cut_groups(tokens_P2: np.ndarray, budget: int, num_parts: int) -> list[np.ndarray]:
    """Positions of the groups of each of `num_parts` micro-batches, none empty, the longest groups first.

    num_parts: at least `fewest_parts` and at most P. None is over the budget but a group that is so by itself.
    """
    order_P, bounds_P = _longest_first(tokens_P2)
    alone = int((bounds_P > budget).sum())
    sizes = [1] * alone
    if alone < len(order_P):
        sizes += cut(bounds_P[alone:].tolist(), num_parts - alone)
    return np.split(order_P, np.cumsum(sizes)[:-1])


def _longest_first(tokens_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order, and what each group adds at most to a micro-batch that begins with it; that descends."""
    order_P = np.argsort(-tokens_P2.sum(axis=1), kind="stable")
    longest_yet_P2 = np.maximum.accumulate(tokens_P2[order_P][::-1])[::-1]
    return order_P, longest_yet_P2.sum(axis=1)


def padded_tokens(parts: Sequence[np.ndarray], tokens_P2: np.ndarray) -> list[int]:
    """Tokens that each micro-batch computes."""
    return [len(part) * int(tokens_P2[part].max(axis=0).sum()) for part in parts]
