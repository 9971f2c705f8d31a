"""Ask an export one question in a clean process, without this repository on its path, and compare with a prediction.

    python -m scripts.check_export --export outputs/demo/export --annotations outputs/demo/videos/heldout.jsonl \
        --predictions outputs/demo/eval_grpo/predictions.jsonl

Fails where text or boxes differ.
"""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

from configs.run import ROOT, setup_logging
from configs.video import VideoConfig
from data.sources.jsonl import read_samples
from data.token_budget import TokenBudget
from evaluation.predictions import read_predictions
from model.backbone import load_processor
from model.grounding_model import MLLM_FOLDER

logger = logging.getLogger("scripts.check_export")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", required=True, type=Path, help="folder that scripts.export wrote")
    parser.add_argument("--annotations", required=True, type=Path, help="JSONL file that the predictions are about")
    parser.add_argument("--predictions", required=True, type=Path, help="of the exported checkpoint")
    parser.add_argument("--max-completion-length", type=int, default=32, help="as the predictions were made with")
    arguments = parser.parse_args()
    setup_logging()
    check_export(
        arguments.export, arguments.annotations, arguments.predictions, max_new_tokens=arguments.max_completion_length
    )


def check_export(export: Path, annotations: Path, predictions: Path, *, max_new_tokens: int) -> None:
    """Raises RuntimeError where the export does not answer as the checkpoint did."""
    config = json.loads((export / "config.json").read_text())
    prediction = read_predictions(predictions)[0]
    sample = next(s for s in read_samples(annotations) if s.sample_id == prediction.sample_id)
    processor = load_processor(str(export / MLLM_FOLDER))
    budget = TokenBudget(processor, VideoConfig(**config["video"]), order=config["prompt"]["prompt_order"])
    frame_idx = budget.frames(sample)
    question = {
        "video": str(Path(sample.video_path).resolve()),
        "query": sample.query,
        "frame_idx": frame_idx.tolist(),
        "fps": sample.fps,
        "num_frames": len(sample.clip),
        "max_new_tokens": max_new_tokens,
    }
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reload_export.py"), str(export.resolve()), json.dumps(question)],
        check=True, cwd="/", stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answer = json.loads(result.stdout.splitlines()[-1])
    if answer["text"] != prediction.text:
        raise RuntimeError(f"the export answers {answer['text']!r}, the checkpoint {prediction.text!r}")
    pairs = [(answer["boxes"][str(frame)], box) for frame, box in prediction.boxes.items()]
    farthest = max((abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)), default=0.0)
    if farthest > 1e-5 * sample.width:
        raise RuntimeError(f"boxes of the export and the checkpoint differ by {farthest} pixels")
    logger.info("same answer, %s, and the same %d boxes (within %.0e px)", answer["text"], len(pairs), farthest)


if __name__ == "__main__":
    main()
