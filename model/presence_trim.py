"""An interval that the text answered, moved to where the decoder sees its target.

The spatial decoder says of every frame that it looks at whether the target is present. That is known at sampled frames
alone, so an end of the text that lies between a present frame and the absent one beside it is already as good as any.

The rule is our own. Shapes: T sampled frames.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from data.types import FrameSpan

Trim = Literal["off", "kept", "moved", "absent"]
"""What became of an answered interval. off: presence was not asked. kept: it agrees with the text. moved: by presence.
absent: no frame has the target, and the interval is the text's."""


def trim_span(
    span: FrameSpan,
    window: FrameSpan,
    frame_idx_T: np.ndarray,
    looked_at: Sequence[int],
    is_present: Sequence[bool],
    *,
    clip: FrameSpan,
) -> tuple[FrameSpan, Trim]:
    """The text's `span` moved to the longest run of looked-at frames with the target.

    looked_at: positions among frame_idx_T, ascending and next to each other; is_present: whether the target is there.
    frame_idx_T: absolute frames, ascending. window: the frames that may be answered, `span` and its margin. Of two runs of one length the earlier counts.
    """
    run = longest_run(is_present)
    if run is None:
        return span, "absent"
    first, last = looked_at[run.start], looked_at[run.stop - 1]
    before = int(frame_idx_T[first - 1]) + 1 if first else clip.start
    after = int(frame_idx_T[last + 1]) if last + 1 < len(frame_idx_T) else clip.end
    start = max(_end_between(before, int(frame_idx_T[first]), span.start), window.start)
    end = min(_end_between(int(frame_idx_T[last]) + 1, after, span.end), window.end)
    moved = FrameSpan(start, end)
    return moved, "kept" if moved == span else "moved"


def longest_run(present: Sequence[bool]) -> slice | None:
    """Where the longest run of True is, the first of several; None without any. [0, 1, 1, 0, 1] -> slice(1, 3)."""
    best, start = slice(0, 0), 0
    for i, is_present in enumerate(present):
        if not is_present:
            start = i + 1
        elif i + 1 - start > best.stop - best.start:
            best = slice(start, i + 1)
    return best if best.stop else None


def _end_between(lowest: int, highest: int, text: int) -> int:
    """An end that may be anywhere in lowest .. highest: the text's where it is one of them, else the middle."""
    return text if lowest <= text <= highest else (lowest + highest) // 2
