"""Dynamic sampling (DAPO, 2503.14476, section 3.2): a step goes on drawing prompts until enough of their groups have signal."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from data.encoding import EncodedPrompt
from data.mixture import Group, draw_order
from data.types import GroundingSample
from evaluation.vllm_engine import Rollout


@dataclass(frozen=True)
class RolledOut:
    """A sample with its prompt and the completions that were drawn for it."""

    sample: GroundingSample
    prompt: EncodedPrompt
    group: Sequence[Rollout]


def resample(
    first: Sequence[RolledOut],
    further: Iterator[GroundingSample],
    roll: Callable[[list[GroundingSample]], list[RolledOut]],
    has_signal: Callable[[Sequence[RolledOut]], Sequence[bool]],
    *,
    max_resamples: int,
) -> tuple[list[RolledOut], int, int]:
    """As many groups as `first`, those with signal before the others; how many of them have it; how many were drawn.

    Each time as many `further` samples are rolled out as groups with signal are missing, at most `max_resamples` times.
    """
    size, drawn, batch = len(first), len(first), list(first)
    kept: list[RolledOut] = []
    spare: list[RolledOut] = []
    for rounds_left in range(max_resamples, -1, -1):
        for rolled, is_kept in zip(batch, has_signal(batch), strict=True):
            (kept if is_kept else spare).append(rolled)
        more = list(islice(further, size - len(kept))) if rounds_left else []
        if not more:
            break
        batch = roll(more)
        drawn += len(batch)
    return [*kept, *spare][:size], len(kept), drawn


def further_rows(groups: Sequence[Group], taken: np.ndarray, *, count: int, seed: int, step: int) -> np.ndarray:
    """At most `count` samples that a step may draw beside those it has `taken`, a function of (seed, step).

    In proportion to the groups' weights, as `draw_order` draws; no sample comes twice.
    """
    derived = int(np.random.SeedSequence([seed, 4, step]).generate_state(1)[0])
    order = draw_order(groups, total=count + len(taken), seed=derived)
    _, firsts = np.unique(order, return_index=True)
    distinct = order[np.sort(firsts)]
    return distinct[~np.isin(distinct, taken)][:count]
