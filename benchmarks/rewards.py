"""All reward terms of a rollout batch as tensors, against loops over samples and frames as published reward code writes them.

python -m benchmarks.rewards --json
python -m benchmarks.rewards --rollouts 4096 --frames 64 --repeats 5

Every tube has `frames` annotated frames and a predicted box at each; answers are off by up to a second at either end, and one in
sixteen is none. Both sides start from the same texts, boxes and samples and give the same rewards: `format`, `temporal`,
`viou`, `spatial`, `gated`.

`ratio`: median seconds of the published form (a function for each reward that parses every text again) / ours, parsing counted on both
sides. `ratio_one_pass`: of a loop that parses once and walks over the frames once for all rewards. `ratio_scoring`: that loop and
ours without parsing. `seconds` of each part; `max_abs_diff` of the rewards, of both loops.
"""

import argparse
import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reward_loops import PUBLISHED, one_pass_loop, parse, published_loop
from benchmarks.turns import median_seconds, show
from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, parse_answer
from data.tubes import tube_batch
from data.types import FrameSpan, GroundingSample
from rewards.composer import RewardComposer

FPS, SIZE_PX, GROUP = 8.0, 100, 8


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=4096, help="answers in the batch")
    parser.add_argument("--frames", type=int, default=64, help="annotated frames of each")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes; their median counts")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args()
    result = measure(arguments.rollouts, arguments.frames, arguments.repeats)
    show(result, as_json=arguments.json)


def measure(rollouts: int, frames: int, repeats: int) -> dict[str, Any]:
    """The parts in turn; all give the same rewards."""
    samples, texts, boxes_BT4, frame_idx_BT = draw(rollouts, frames)
    composer, valid_BT = RewardComposer(RewardConfig()), torch.ones(rollouts, frames, dtype=torch.bool)
    rows = zip(frame_idx_BT.tolist(), boxes_BT4.tolist(), strict=True)
    tubes = [dict(zip(*row, strict=True)) for row in rows]
    answers, spans_sec = parse_all(samples, texts), [parse(text) for text in texts]

    def ours() -> Tensor:
        breakdown = composer(tube_batch(samples, answers, boxes_BT4, frame_idx_BT, valid_BT))
        return breakdown.terms_BK[:, [breakdown.names.index(name) for name in PUBLISHED]]

    # A collection that walks through a million numbers of the inputs would be charged to whoever is running then.
    gc.collect()
    gc.freeze()
    parts: dict[str, Callable[[], Any]] = {
        "ours_parsing": lambda: parse_all(samples, texts),
        "ours_scoring": ours,
        "published_loop": lambda: published_loop(samples, texts, tubes),
        "one_pass_parsing": lambda: [parse(text) for text in texts],
        "one_pass_scoring": lambda: one_pass_loop(samples, spans_sec, tubes),
    }
    seconds = median_seconds(parts, repeats)
    mine, one_pass = (seconds[f"{side}_parsing"] + seconds[f"{side}_scoring"] for side in ("ours", "one_pass"))
    loop_KB = torch.tensor(list(published_loop(samples, texts, tubes).values()))
    loop_BK = torch.tensor(one_pass_loop(samples, spans_sec, tubes))
    differences = [float((ours() - loop).abs().max()) for loop in (loop_KB.T, loop_BK)]
    gc.unfreeze()
    return {
        "benchmark": "rewards",
        "rollouts": rollouts,
        "frames": frames,
        "ratio": round(seconds["published_loop"] / mine, 2),
        "ratio_one_pass": round(one_pass / mine, 2),
        "ratio_scoring": round(seconds["one_pass_scoring"] / seconds["ours_scoring"], 2),
        "max_abs_diff": max(differences),
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }  # fmt: skip


def parse_all(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[Answer | ParseFailure]:
    """Our parser, once for each text."""
    return [parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)]


def draw(rollouts: int, frames: int) -> tuple[list[GroundingSample], list[str], Tensor, Tensor]:
    """Groups about one moving box each, in clips half as long again; predicted boxes [B, T, 4] near it, at its frames [B, T]."""
    rng = np.random.default_rng(0)
    samples: list[GroundingSample] = []
    for number in range(-(-rollouts // GROUP)):
        samples += [_sample(str(number), frames, rng)] * GROUP
    samples = samples[:rollouts]
    texts = [_text(number, sample, rng) for number, sample in enumerate(samples)]
    frame_idx_BT = torch.tensor([list(range(s.span.start, s.span.end)) for s in samples if s.span is not None])
    boxes_px_BT4 = torch.tensor([sample.boxes_xyxy_px for sample in samples])
    noise = torch.rand(boxes_px_BT4.shape, generator=torch.Generator().manual_seed(0)) * 10 - 5
    return samples, texts, ((boxes_px_BT4 + noise) / SIZE_PX).clamp(0, 1), frame_idx_BT


def _sample(sample_id: str, frames: int, rng: np.random.Generator) -> GroundingSample:
    clip = frames + frames // 2
    start = int(rng.integers(0, clip - frames + 1))
    x, y, w, h = (float(value) for value in rng.uniform(10, 40, size=4))
    shift = 10 / frames
    return GroundingSample(
        sample_id=sample_id, task="stvg", query="the red circle", video_path="a.mp4", fps=FPS, width=SIZE_PX, height=SIZE_PX,
        clip=FrameSpan(0, clip), span=FrameSpan(start, start + frames),
        boxes_xyxy_px=tuple((x + shift * t, y, x + shift * t + w, y + h) for t in range(frames)),
    )  # fmt: skip


def _text(number: int, sample: GroundingSample, rng: np.random.Generator) -> str:
    start, end = np.array(sample.span_sec) + rng.uniform(-1, 1, size=2)
    start = max(start, 0.0)
    return "I do not know." if number % 16 == 0 else f"<time> {start:.2f} - {max(end, start + 0.3):.2f} </time>"


if __name__ == "__main__":
    main()
