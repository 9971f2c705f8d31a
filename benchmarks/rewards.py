"""All reward terms of a rollout batch as tensors, against loops over samples and frames as published reward code writes them.

python -m benchmarks.rewards --json
python -m benchmarks.rewards --rollouts 4096 --frames 64 --repeats 5

Two batches (benchmarks/reward_batches.py), of which both sides give the same rewards, or it is an error:

    spans    intervals, with a decoder's boxes beside them as numbers: format, temporal, viou, spatial, gated
    written  tubes with a box in the text for each frame and each of two sequences, and letters: all nine terms

The headline `ratio` is that of `written`, `max_abs_diff` the largest of both. For each of them `ratio`: median seconds of the
published form (a function for each reward that parses every text again) / ours, parsing counted on both sides. `ratio_one_pass`: of
a loop that parses once and walks over the frames once for all rewards. `ratio_scoring`: that loop and ours without parsing.
`seconds` of each part; `published_parsing` is measured by itself, and is a part of `published_loop`. `max_abs_diff` of each reward,
of both loops.
"""

import argparse
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import reward_loops, written_reward_loops
from benchmarks.reward_batches import draw_spans, draw_written
from benchmarks.turns import median_seconds, show
from configs.rewards import RewardConfig
from data.answers import Answer, ParseFailure, parse_answer
from data.tubes import tube_batch
from data.types import GroundingSample
from data.written_answers import AnswerStyle, ReadAnswers, read_answers, written_beside_truth
from rewards.composer import RewardComposer

STYLE = AnswerStyle(answer_format="tube", tube_unit="frames")
ALL_TERMS = RewardConfig.model_validate(
    {"preset": "stvg_o1", "weights": {"viou": 1.0, "spatial": 1.0, "gated": 1.0}, "tasks": {"qa": {"choice": 1.0}}}
)
LARGEST_DIFFERENCE = 1e-6


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
    """Both batches. Raises ValueError where two sides disagree on a reward."""
    spans, written = (part(rollouts, frames, repeats) for part in (measure_spans, measure_written))
    return {
        "benchmark": "rewards",
        "rollouts": rollouts,
        "frames": frames,
        "repeats": repeats,
        "ratio": written["ratio"],
        "max_abs_diff": max([*spans["max_abs_diff"].values(), *written["max_abs_diff"].values()]),
        "spans": spans,
        "written": written,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measure_spans(rollouts: int, frames: int, repeats: int) -> dict[str, Any]:
    """Intervals, with a decoder's boxes beside them."""
    drawn = draw_spans(rollouts, frames)
    samples, texts, composer = drawn.samples, drawn.texts, RewardComposer(RewardConfig())
    valid_BT = torch.ones(rollouts, frames, dtype=torch.bool)
    rows = zip(drawn.frame_idx_BT.tolist(), drawn.boxes_BT4.tolist(), strict=True)
    tubes = [dict(zip(*row, strict=True)) for row in rows]
    answers, spans_sec = parse_spans(samples, texts), [reward_loops.parse(text) for text in texts]

    def ours() -> dict[str, Tensor]:
        got = composer(tube_batch(samples, answers, drawn.boxes_BT4, drawn.frame_idx_BT, valid_BT))
        return dict(zip(got.names, got.terms_BK.unbind(dim=1), strict=True))

    return side_by_side(
        {
            "ours_parsing": lambda: parse_spans(samples, texts),
            "ours_scoring": ours,
            "published_parsing": lambda: parse_again(
                reward_loops.parse, zip(texts, strict=True), times=len(reward_loops.PUBLISHED)
            ),
            "published_loop": lambda: reward_loops.published_loop(samples, texts, tubes),
            "one_pass_parsing": lambda: [reward_loops.parse(text) for text in texts],
            "one_pass_scoring": lambda: reward_loops.one_pass_loop(samples, spans_sec, tubes),
        },
        repeats,
    )


def measure_written(rollouts: int, frames: int, repeats: int) -> dict[str, Any]:
    """Boxes in the text, and letters."""
    drawn, loops = draw_written(rollouts, frames), written_reward_loops
    samples, texts, frame_idx, composer = drawn.samples, drawn.texts, drawn.frame_idx, RewardComposer(ALL_TERMS)
    read, parsed = read_answers(samples, frame_idx, texts, STYLE), loops.parse_all(samples, texts)

    def ours() -> dict[str, Tensor]:
        return score_written(composer, samples, frame_idx, read)

    return side_by_side(
        {
            "ours_parsing": lambda: read_answers(samples, frame_idx, texts, STYLE),
            "ours_scoring": ours,
            "published_parsing": lambda: parse_again(
                loops.parse, zip(samples, texts, strict=True), times=len(loops.PUBLISHED)
            ),
            "published_loop": lambda: loops.published_loop(samples, texts),
            "one_pass_parsing": lambda: loops.parse_all(samples, texts),
            "one_pass_scoring": lambda: loops.one_pass_loop(samples, parsed),
        },
        repeats,
    )


def parse_spans(samples: Sequence[GroundingSample], texts: Sequence[str]) -> list[Answer | ParseFailure]:
    """Our parser, once for each text."""
    return [parse_answer(sample, text) for sample, text in zip(samples, texts, strict=True)]


def parse_again(parse: Callable[..., Any], rows: Iterable[tuple[Any, ...]], *, times: int) -> None:
    """What the published form parses: each text for each reward, of which nothing is kept."""
    for row in rows:
        for _ in range(times):
            parse(*row)


def score_written(
    composer: RewardComposer, samples: Sequence[GroundingSample], frame_idx: Sequence[np.ndarray], read: ReadAnswers
) -> dict[str, Tensor]:
    """Every term of answers with their boxes in the text, [B], as a step of GRPO computes them."""
    assert read.boxes is not None
    written = written_beside_truth(read, samples, frame_idx, STYLE)
    got = composer(tube_batch(samples, read.answers, *read.boxes.padded(), written=written))
    return dict(zip(got.names, got.terms_BK.unbind(dim=1), strict=True))


def side_by_side(parts: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """The parts in turn, and how far the rewards of the three that score lie apart."""
    published: dict[str, list[float]] = parts["published_loop"]()
    one_pass = dict(zip(published, zip(*parts["one_pass_scoring"](), strict=True), strict=True))
    differences = largest_differences(parts["ours_scoring"](), (published, one_pass))
    # A collection that walks through a million numbers of the inputs would be charged to whoever is running then.
    gc.collect()
    gc.freeze()
    seconds = median_seconds(parts, repeats)
    gc.unfreeze()
    ours, once = (seconds[f"{side}_parsing"] + seconds[f"{side}_scoring"] for side in ("ours", "one_pass"))
    return {
        "terms": list(published),
        "ratio": round(seconds["published_loop"] / ours, 2),
        "ratio_one_pass": round(once / ours, 2),
        "ratio_scoring": round(seconds["one_pass_scoring"] / seconds["ours_scoring"], 2),
        "max_abs_diff": differences,
        "seconds": {name: round(value, 5) for name, value in seconds.items()},
    }


def largest_differences(
    ours: Mapping[str, Tensor], others: Sequence[Mapping[str, Sequence[float]]]
) -> dict[str, float]:
    """Of each reward, over answers and sides. Raises ValueError above LARGEST_DIFFERENCE: such sides cannot be compared."""
    differences = {
        name: float((ours[name] - torch.tensor([other[name] for other in others], dtype=torch.float64)).abs().max())
        for name in others[0]
    }
    if apart := {name: value for name, value in differences.items() if not value <= LARGEST_DIFFERENCE}:
        raise ValueError(f"expected the same rewards of all sides to {LARGEST_DIFFERENCE}, got differences {apart}")
    return differences


if __name__ == "__main__":
    main()
