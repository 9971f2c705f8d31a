"""Every stage of the main job on a laptop: rendered videos and a tiny model, but real mp4, TRL, Ray, vLLM and export.

    make demo        =  python -m scripts.demo --out outputs/demo

Each stage is the command that a user would run; it is printed before it runs. The demo stops at the first that fails.
"""

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from configs.run import ROOT, quiet_environment, setup_logging

logger = logging.getLogger("demo")

CONFIGS = Path("configs/demo")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--sft-steps", type=int, help="instead of the config's")
    parser.add_argument("--rft-steps", type=int, help="instead of the config's")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    started = time.time()
    run_stages(arguments.out, sft_steps=arguments.sft_steps, rft_steps=arguments.rft_steps)
    summary = write_summary(arguments.out, minutes=(time.time() - started) / 60)
    logger.info("done in %.1f minutes; %s", summary["minutes"], arguments.out / "summary.json")
    for name in ("sft", "grpo"):
        logger.info("%s\n%s", name, (arguments.out / f"eval_{name}" / "report.md").read_text())


def run_stages(out: Path, *, sft_steps: int | None, rft_steps: int | None) -> None:
    """Render, make a backbone, SFT, evaluate, GRPO, evaluate, export, reload, draw."""
    sft, rft, evaluate = (str(CONFIGS / name) for name in ("sft.yaml", "rft.yaml", "evaluate.yaml"))
    videos = f"data.source.root={out}/videos"
    stage("render videos", "data.prepare", "--config", sft, videos)
    stage("tiny backbone", "model.tiny_backbone", "--config", sft, "--out", f"{out}/backbone", videos)
    stage("SFT", "sft.train", "--config", sft, videos, f"run.out={out}/sft", f"model.backbone={out}/backbone",
          *_steps(sft_steps))  # fmt: skip
    stage("evaluate SFT", "evaluation.run", "--config", evaluate, videos, f"checkpoint={out}/sft/checkpoint",
          f"out={out}/eval_sft")  # fmt: skip
    stage("GRPO", "rft.train", "--config", rft, videos, f"run.out={out}/rft", f"checkpoint={out}/sft/checkpoint",
          *_steps(rft_steps))  # fmt: skip
    stage("evaluate GRPO", "evaluation.run", "--config", evaluate, videos, f"checkpoint={out}/rft/checkpoint",
          f"out={out}/eval_grpo")  # fmt: skip
    stage("export", "scripts.export", "--checkpoint", f"{out}/rft/checkpoint", "--out", f"{out}/export")
    reload_export(out)
    predictions = out / "predictions.jsonl"
    predictions.write_text((out / "eval_grpo" / "predictions.jsonl").read_text())
    stage("annotated video", "evaluation.draw", "--annotations", f"{out}/videos/test.jsonl", "--predictions",
          str(predictions), "--out", f"{out}/annotated")  # fmt: skip


def _steps(count: int | None) -> list[str]:
    return [] if count is None else [f"max_steps={count}"]


def stage(title: str, module: str, *arguments: str) -> None:
    """Run one module as a user would."""
    command = [sys.executable, "-m", module, *arguments]
    logger.info("== %s\n   %s", title, shlex.join(["python", *command[1:]]))
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ)


def reload_export(out: Path) -> None:
    """Ask the export one question in a clean process and compare with the checkpoint's own answer."""
    from data.frame_sampling import sample_frames
    from data.sources.jsonl import read_samples
    from evaluation.predict import read_predictions

    prediction = read_predictions(out / "eval_grpo" / "predictions.jsonl")[0]
    sample = next(s for s in read_samples(out / "videos" / "test.jsonl") if s.sample_id == prediction.sample_id)
    frame_idx = sample_frames(sample.clip, fps=sample.fps, sample_fps=2.0, max_frames=64)
    question = {
        "video": str(Path(sample.video_path).resolve()),
        "query": sample.query,
        "frame_idx": frame_idx.tolist(),
        "fps": sample.fps,
        "num_frames": len(sample.clip),
    }
    logger.info("== reload the export without this repository on the path")
    script = str(ROOT / "scripts" / "reload_export.py")
    result = subprocess.run(
        [sys.executable, script, str((out / "export").resolve()), json.dumps(question)],
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


def write_summary(out: Path, *, minutes: float) -> dict[str, Any]:
    """summary.json, and the metrics of both stages in one metrics.jsonl."""
    from data.sources.jsonl import read_samples
    from evaluation.metrics import paired_difference, score
    from evaluation.predict import read_predictions

    metrics = {name: json.loads((out / f"eval_{name}" / "metrics.json").read_text()) for name in ("sft", "grpo")}
    samples = [sample for sample in read_samples(out / "videos" / "test.jsonl") if sample.task == "stvg"]
    scores = {
        name: score(samples, read_predictions(out / f"eval_{name}" / "predictions.jsonl")) for name in ("sft", "grpo")
    }
    summary = {
        "sft": metrics["sft"]["right_query"],
        "sft_wrong_query": metrics["sft"]["wrong_query"],
        "constant": metrics["sft"]["constant"],
        "grpo": metrics["grpo"]["right_query"],
        "grpo_wrong_query": metrics["grpo"]["wrong_query"],
        "grpo_minus_sft": paired_difference(scores["grpo"], scores["sft"], num_resamples=2000, seed=0),
        "minutes": round(minutes, 2),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    both = (out / "sft" / "metrics.jsonl").read_text() + (out / "rft" / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(both)
    return summary


if __name__ == "__main__":
    main()
