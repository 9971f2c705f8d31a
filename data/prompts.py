"""The question of each task, as chat messages with one vision part.

A sentence and its video become, with prompt_order=query_video_query:

    user: Query: "the red circle" <video> When and where is it? Answer: <time> start - end </time>
          Query: "the red circle"
"""

from typing import Any, Literal

from data.types import GroundingSample
from data.written_answers import AnswerStyle

PromptOrder = Literal["query_video_query", "video_query"]

INSTRUCTIONS = {
    "stvg": "When and where is it? Answer: <time> start - end </time>",
    "temporal": "When is it? Answer: <time> start - end </time>",
    "rec": "Where is it? Answer: <box> </box>",
    "qa": "Which is right? Answer: <answer> letter </answer>",
}


TUBE_INSTRUCTIONS = INSTRUCTIONS | {
    "stvg": "When and where is it? Answer for every {unit} n: <time> start - end </time> <think_bbox> n. [left, top, right, "
    "bottom], ... </think_bbox> <pred_bbox> n. [left, top, right, bottom], ... </pred_bbox>",
    "rec": "Where is it? Answer: <pred_bbox> [left, top, right, bottom] </pred_bbox>",
}
"""Of written boxes. STVG-o1 (2511.21375) does not give its prompt: ours."""


def build_messages(
    sample: GroundingSample, *, order: PromptOrder, style: AnswerStyle | None = None
) -> list[dict[str, Any]]:
    """Messages for `processor.apply_chat_template`; the vision part is an image for a clip of one frame.

    style: how the answer is to be written; None: an interval, a letter or nothing.
    """
    question = f'Query: "{sample.query}"'
    if sample.task == "qa":
        question += "".join(f" ({chr(ord('A') + i)}) {option}" for i, option in enumerate(sample.options))
    vision = {"type": "image" if len(sample.clip) == 1 else "video"}
    after = {"type": "text", "text": f"{_instruction(sample, style)} {question}"}
    before = [{"type": "text", "text": question}] if order == "query_video_query" else []
    return [{"role": "user", "content": [*before, vision, after]}]


def _instruction(sample: GroundingSample, style: AnswerStyle | None) -> str:
    if style is None or not style.has_boxes:
        return INSTRUCTIONS[sample.task]
    return TUBE_INSTRUCTIONS[sample.task].format(unit=style.tube_unit.removesuffix("s"))
