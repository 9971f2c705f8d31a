"""The question of each task, as chat messages with one vision part.

A sentence and its video become, with prompt_order=query_video_query:

    user: Query: "the red circle" <video> When and where is it? Answer: <time> start - end </time>
          Query: "the red circle"
"""

from typing import Any, Literal

from data.types import GroundingSample

PromptOrder = Literal["query_video_query", "video_query"]

INSTRUCTIONS = {
    "stvg": "When and where is it? Answer: <time> start - end </time>",
    "temporal": "When is it? Answer: <time> start - end </time>",
    "rec": "Where is it? Answer: <box> </box>",
    "qa": "Which is right? Answer: <answer> letter </answer>",
}


def build_messages(sample: GroundingSample, *, order: PromptOrder) -> list[dict[str, Any]]:
    """Messages for `processor.apply_chat_template`; the vision part is an image for a clip of one frame."""
    question = f'Query: "{sample.query}"'
    if sample.task == "qa":
        question += "".join(f" ({chr(ord('A') + i)}) {option}" for i, option in enumerate(sample.options))
    vision = {"type": "image" if len(sample.clip) == 1 else "video"}
    after = {"type": "text", "text": f"{INSTRUCTIONS[sample.task]} {question}"}
    before = [{"type": "text", "text": question}] if order == "query_video_query" else []
    return [{"role": "user", "content": [*before, vision, after]}]
