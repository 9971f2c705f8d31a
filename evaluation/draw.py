"""A video with the true tube (green) and the predicted one (orange), the sentence, and both intervals as a timeline.

    python -m evaluation.draw --annotations outputs/demo/videos/heldout.jsonl \
        --predictions outputs/demo/eval_grpo/predictions.jsonl --out outputs/demo/annotated
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from configs.run import setup_logging
from configs.video import VideoConfig
from data.collate import true_box_px
from data.sources.jsonl import read_samples
from data.types import GroundingSample
from data.video import READERS, write_video
from evaluation.predictions import Prediction, read_predictions, was_asked
from evaluation.tube_pairs import predicted_boxes

logger = logging.getLogger("evaluation.draw")

GREEN, ORANGE, GREY, WHITE = (60, 220, 90), (255, 140, 30), (90, 92, 98), (240, 240, 240)
BACKGROUND = (16, 17, 20)
PANEL_PX = 96
MIN_WIDTH_PX = 480
DECODER = VideoConfig().decoder
CHUNK = 128  # frames decoded at a time


def main() -> None:
    """Entry point: one mp4 for each of the first predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True, type=Path, help="a JSONL of data/sources/jsonl.py")
    parser.add_argument("--predictions", required=True, type=Path, help="predictions.jsonl of an evaluation")
    parser.add_argument("--out", required=True, type=Path, help="folder for the drawn videos")
    parser.add_argument("--count", type=int, default=1, help="videos to draw")
    arguments = parser.parse_args()
    setup_logging()
    samples = {sample.sample_id: sample for sample in read_samples(arguments.annotations)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    predictions = drawable(read_predictions(arguments.predictions), samples)
    for prediction in tqdm(predictions[: arguments.count], desc="draw", unit="video"):
        path = arguments.out / f"{file_stem(prediction.sample_id)}.mp4"
        annotate(samples[prediction.sample_id], prediction, path)
        logger.info("%s", path)


def file_stem(sample_id: str) -> str:
    """The id with percent signs for what a file name should not hold; other ids have other stems.

    >>> file_stem("vidstg/10712559773-3")
    'vidstg%2F10712559773-3'
    """
    return quote(sample_id, safe="")


def drawable(predictions: Sequence[Prediction], samples: Mapping[str, GroundingSample]) -> list[Prediction]:
    """Those with boxes to show, of videos that could be read; the others are counted in the log.

    Raises ValueError for a prediction that no sample belongs to.
    """
    if unknown := [p.sample_id for p in predictions if p.sample_id not in samples]:
        raise ValueError(f"{len(unknown)} predictions have no annotation, first {unknown[:3]}")
    kept = [p for p in predictions if was_asked(p) and samples[p.sample_id].task in ("stvg", "rec")]
    if len(kept) < len(predictions):
        logger.warning(
            "%d of %d predictions are not drawn: unread, or without boxes",
            len(predictions) - len(kept),
            len(predictions),
        )
    return kept


def annotate(sample: GroundingSample, prediction: Prediction, path: Path, *, decoder: str = DECODER) -> None:
    """Write the annotated clip at its own frame rate. Raises VideoDecodeError."""
    frame_idx = np.arange(sample.clip.start, sample.clip.end)
    chunks = np.array_split(frame_idx, -(-len(frame_idx) // CHUNK))
    frames = (frame for chunk in chunks for frame in READERS[decoder](Path(sample.video_path), chunk)[0])
    scale = max(1, -(-MIN_WIDTH_PX // sample.width))
    width, height = sample.width * scale, sample.height * scale + PANEL_PX
    # H.264 with 4:2:0 colour wants even sides.
    width, height = width + width % 2, height + height % 2
    drawn = _drawn(sample, prediction, frames, frame_idx, scale, (width, height))
    write_video(path, drawn, fps=sample.fps, width=width, height=height)


def _drawn(
    sample: GroundingSample,
    prediction: Prediction,
    frames: Iterator[np.ndarray],
    frame_idx: np.ndarray,
    scale: int,
    size: tuple[int, int],
) -> Iterator[np.ndarray]:
    predicted = predicted_boxes(prediction)
    panel = _panel(sample, prediction, size[0])
    for frame, index in zip(frames, frame_idx.tolist(), strict=True):
        canvas = Image.new("RGB", size, BACKGROUND)
        picture = Image.fromarray(frame)
        canvas.paste(picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST), (0, 0))
        brush = ImageDraw.Draw(canvas)
        for box, colour in ((true_box_px(sample, index), GREEN), (predicted.get(index), ORANGE)):
            if box is not None:
                brush.rectangle([value * scale for value in box], outline=colour, width=3)
        top = sample.height * scale
        canvas.paste(panel, (0, top))
        x = _x_of(sample, index, size[0])
        brush.line([(x, top + 40), (x, top + 90)], fill=WHITE, width=2)
        yield np.asarray(canvas)


def _x_of(sample: GroundingSample, frame: int, width: int) -> float:
    left, right = 84, width - 12
    return left + (right - left) * (frame - sample.clip.start) / len(sample.clip)


def _panel(sample: GroundingSample, prediction: Prediction, width: int) -> Image.Image:
    panel = Image.new("RGB", (width, PANEL_PX), BACKGROUND)
    brush = ImageDraw.Draw(panel)
    font = ImageFont.load_default(size=15)
    brush.text((10, 8), f'"{prediction.query}"  ->  {prediction.text or "(no answer)"}', fill=WHITE, font=font)
    draw_timeline(brush, sample, prediction, top=40, width=width)
    return panel


def draw_timeline(
    brush: ImageDraw.ImageDraw, sample: GroundingSample, prediction: Prediction, *, top: int, width: int
) -> None:
    """The true and the predicted interval as two bars over the length of the clip, 50 pixels high together."""
    font = ImageFont.load_default(size=15)
    true_span = None if sample.span is None else (sample.span.start, sample.span.end)
    for y, name, span, colour in ((top + 2, "truth", true_span, GREEN), (top + 28, "answer", prediction.span, ORANGE)):
        brush.text((10, y), name, fill=colour, font=font)
        brush.rectangle(
            [_x_of(sample, sample.clip.start, width), y + 4, _x_of(sample, sample.clip.end, width), y + 16], fill=GREY
        )
        if span is not None:
            brush.rectangle([_x_of(sample, span[0], width), y + 4, _x_of(sample, span[1], width), y + 16], fill=colour)


if __name__ == "__main__":
    main()
