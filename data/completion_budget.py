"""How many tokens the written boxes of an answer can take, so that no answer is cut off: tokens of a box x indices.

`max_completion_length` and `max_new_tokens` count the rest of an answer; where an answer has boxes, these are added.
"""

import math
from functools import lru_cache
from typing import Any

from data.tube_text import SCALE, TubeText, format_tube
from data.types import DecodedClip
from data.written_answers import AnswerStyle


def box_tokens(tokenizer: Any, style: AnswerStyle, clip: DecodedClip) -> int:
    """The most tokens that both box sequences, their tags and the end token take, over the whole clip; 0 without boxes."""
    if not style.has_boxes:
        return 0
    fixed, each = _tokens_of_boxes(tokenizer)
    return fixed + 2 * each * num_indices(style, clip)


def num_indices(style: AnswerStyle, clip: DecodedClip) -> int:
    """Indices that an interval of the clip can have: frames that the model is shown, or seconds until the last of them."""
    if style.tube_unit == "frames":
        return len(clip.frame_idx_T)
    step_sec = (clip.times_sec_T[-1] - clip.times_sec_T[0]) / max(len(clip.times_sec_T) - 1, 1)
    return max(1, math.ceil(float(clip.times_sec_T[-1] + step_sec) - 1e-9))


@lru_cache(maxsize=8)
def _tokens_of_boxes(tokenizer: Any) -> tuple[int, int]:
    """Tokens of an answer without its boxes, and of one box of one sequence at most, with its index and comma."""

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    # Tokenizers of this kind split text before and after digits, so that its parts add up.
    longest = max(count(str(value)) for value in range(SCALE + 1))
    one, two = (count(format_tube(_tube(length))) for length in (1, 2))
    digits = count("0")
    box = (two - one - 10 * digits) // 2 + 5 * longest
    return one - (two - one) + 1 + 2 * longest, box


def _tube(length: int) -> TubeText:
    boxes = dict.fromkeys(range(length), (0.0, 0.0, 0.0, 0.0))
    return TubeText(0, length - 1, boxes, boxes)
