"""A few predictions on one picture: frames with the true box (green) and the predicted one (orange), both intervals.

    python -m evaluation.contact_sheet --annotations outputs/demo/videos/heldout.jsonl \
        --predictions outputs/demo/eval_grpo/predictions.jsonl --out outputs/demo/contact_sheet.png

Samples are drawn at random with a seed, not chosen.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from configs.run import setup_logging
from data.collate import true_box_px
from data.sources.jsonl import read_samples
from data.types import GroundingSample
from data.video import READERS
from evaluation.draw import BACKGROUND, DECODER, GREEN, GREY, ORANGE, WHITE, draw_timeline, drawable, predicted_boxes
from evaluation.metrics import score
from evaluation.predictions import Prediction, read_predictions

logger = logging.getLogger("evaluation.contact_sheet")

TILE_PX, GAP_PX, HEADER_PX, TIMELINE_PX = 128, 6, 24, 52


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True, type=Path, help="a JSONL of data/sources/jsonl.py")
    parser.add_argument("--predictions", required=True, type=Path, help="predictions.jsonl of an evaluation")
    parser.add_argument("--out", required=True, type=Path, help="picture to write")
    parser.add_argument("--count", type=int, default=6, help="samples, one row each")
    parser.add_argument("--frames", type=int, default=8, help="frames of each")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples")
    arguments = parser.parse_args()
    setup_logging()
    samples = {sample.sample_id: sample for sample in read_samples(arguments.annotations)}
    predictions = [
        p for p in drawable(read_predictions(arguments.predictions), samples) if samples[p.sample_id].task == "stvg"
    ]
    count = min(arguments.count, len(predictions))
    rows = sorted(np.random.default_rng(arguments.seed).choice(len(predictions), size=count, replace=False))
    chosen = [predictions[row] for row in rows]
    sheet = contact_sheet([samples[p.sample_id] for p in chosen], chosen, num_frames=arguments.frames)
    sheet.save(arguments.out)
    logger.info("%s", arguments.out)


def contact_sheet(
    samples: Sequence[GroundingSample], predictions: Sequence[Prediction], *, num_frames: int, decoder: str = DECODER
) -> Image.Image:
    """One row for each sample, `num_frames` frames spread over its clip. Raises VideoDecodeError."""
    scores = score(samples, predictions)
    row_px = HEADER_PX + TILE_PX + TIMELINE_PX + 2 * GAP_PX
    sheet = Image.new("RGB", (num_frames * (TILE_PX + GAP_PX) + GAP_PX, len(samples) * row_px + HEADER_PX), BACKGROUND)
    _legend(sheet)
    for number, (sample, prediction) in enumerate(zip(samples, predictions, strict=True)):
        title = f'"{prediction.query}"   tIoU {scores.tiou[number]:.2f}   vIoU {scores.viou[number]:.2f}'
        frame_idx = np.linspace(sample.clip.start, sample.clip.end - 1, num_frames).round().astype(int)
        row = _row(sample, prediction, title, frame_idx, decoder, size=(sheet.width, row_px))
        sheet.paste(row, (0, HEADER_PX + number * row_px))
    return sheet


def _legend(sheet: Image.Image) -> None:
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for x, text, colour in ((GAP_PX, "truth", GREEN), (60, "answer", ORANGE)):
        brush.text((x, 5), text, fill=colour, font=font)


def _row(
    sample: GroundingSample, prediction: Prediction, title: str, frame_idx: np.ndarray, decoder: str,
    *, size: tuple[int, int],
) -> Image.Image:  # fmt: skip
    row = Image.new("RGB", size, BACKGROUND)
    brush = ImageDraw.Draw(row)
    brush.line([(0, 0), (row.width, 0)], fill=GREY)
    brush.text((GAP_PX, 4), title, fill=WHITE, font=ImageFont.load_default(size=14))
    frames, _ = READERS[decoder](Path(sample.video_path), frame_idx)
    predicted = predicted_boxes(prediction)
    for column, (frame, index) in enumerate(zip(frames, frame_idx.tolist(), strict=True)):
        tile = _tile(frame, {GREEN: true_box_px(sample, index), ORANGE: predicted.get(index)})
        left = GAP_PX + column * (TILE_PX + GAP_PX)
        row.paste(tile, (left, HEADER_PX))
        brush.text((left + 4, HEADER_PX + 2), f"{index / sample.fps:.1f} s", fill=WHITE,
                   font=ImageFont.load_default(11), stroke_width=1, stroke_fill=BACKGROUND)  # fmt: skip
    draw_timeline(brush, sample, prediction, top=HEADER_PX + TILE_PX + GAP_PX, width=row.width)
    return row


def _tile(
    frame: np.ndarray, boxes: dict[tuple[int, int, int], tuple[float, float, float, float] | None]
) -> Image.Image:
    """The frame fitted into a square, its boxes on top."""
    scale = TILE_PX / max(frame.shape[:2])
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    tile = Image.new("RGB", (TILE_PX, TILE_PX), BACKGROUND)
    tile.paste(Image.fromarray(frame).resize(size, Image.Resampling.NEAREST), (0, 0))
    brush = ImageDraw.Draw(tile)
    for colour, box in boxes.items():
        if box is not None:
            brush.rectangle([value * scale for value in box], outline=colour, width=2)
    return tile


if __name__ == "__main__":
    main()
