"""Every stage of the main job on a laptop: rendered videos and a tiny model, but real mp4, TRL, Ray, vLLM and export.

    make demo         =  python -m scripts.demo --configs configs/demo --out outputs/demo
    make demo-full    =  python -m scripts.demo --configs configs/demo_full --out outputs/demo_full

Each stage is the command that a user would run; it is printed before it runs. Started again after a kill, finished
stages are skipped and the interrupted one goes on from its last checkpoint.
"""

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from configs.checkpoints import write_atomically
from configs.run import ROOT, quiet_environment, setup_logging
from scripts.demo_summary import provenance, publish, run_record, show, table, write_summary

logger = logging.getLogger("demo")

TWO_RANKS = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Stage:
    """One command; `module` is what follows `python -m`."""

    title: str
    module: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: dict[str, str]

    @property
    def command(self) -> list[str]:
        return ["python", "-m", *self.module, *self.arguments]

    @property
    def key(self) -> str:
        """What a finished stage is known by."""
        return shlex.join(self.command)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"))
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of the backbone's weights and of every stage")
    parser.add_argument("--sft-steps", type=int, help="of each supervised stage, instead of the config's")
    parser.add_argument("--rft-steps", type=int, help="instead of the config's")
    parser.add_argument("--results", type=Path, help="path without ending: also write the tables and pictures there")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in stages(arguments.configs, arguments.out, data=arguments.out, seed=arguments.seed,
                        sft_steps=arguments.sft_steps, rft_steps=arguments.rft_steps):  # fmt: skip
        run_once(stage, arguments.out / "stages.json")
    minutes = sum(finished(arguments.out / "stages.json").values()) / 60
    summary = write_summary(arguments.out, data=arguments.out, minutes=minutes)
    show(arguments.out, summary)
    if arguments.results is not None:
        record = run_record(f"python -m scripts.demo --configs {arguments.configs} --results {arguments.results}")
        text = "\n\n".join(["# " + arguments.results.name, *provenance(record), table(summary)]) + "\n"
        publish(arguments.out, arguments.results, record | {"summary": summary}, text)


def stages(
    configs: Path, out: Path, *, data: Path, seed: int, sft_steps: int | None = None, rft_steps: int | None = None
) -> list[Stage]:
    """Render, make a backbone, SFT on frames, SFT on videos, evaluate, GRPO, evaluate, export, reload, draw.

    data: where the videos are, or will be.
    """

    def config(name: str) -> tuple[str, str]:
        return "--config", str(configs / f"{name}.yaml")

    def stage(title: str, module: str, *arguments: str, ranks: int = 1) -> Stage:
        launch = (*TWO_RANKS, module) if ranks == 2 else (module,)
        return Stage(title, launch, arguments, ONE_THREAD if ranks == 2 else {})

    videos, frames = f"data.source.root={data}/videos", f"data.source.root={data}/frames"
    sft = () if sft_steps is None else (f"max_steps={sft_steps}",)
    rft = () if rft_steps is None else (f"max_steps={rft_steps}",)
    run = f"run.seed={seed}"
    drawn = ("--annotations", f"{data}/videos/test.jsonl", "--predictions", f"{out}/eval_grpo/predictions.jsonl")
    return [
        stage("render videos", "data.prepare", *config("sft"), videos),
        stage("render frames", "data.prepare", *config("sft_frames"), frames),
        stage("tiny backbone", "model.tiny_backbone", *config("sft"), "--out", f"{out}/backbone", "--seed", str(seed),
              videos),
        stage("SFT on single frames", "sft.train", *config("sft_frames"), frames, f"run.out={out}/sft_frames", run,
              f"model.backbone={out}/backbone", *sft, ranks=2),
        stage("SFT on videos", "sft.train", *config("sft"), videos, f"run.out={out}/sft", run,
              f"checkpoint={out}/sft_frames/checkpoint", *sft, ranks=2),
        stage("evaluate SFT", "evaluation.run", *config("evaluate"), videos, f"checkpoint={out}/sft/checkpoint",
              f"out={out}/eval_sft"),
        stage("GRPO", "rft.train", *config("rft"), videos, f"run.out={out}/rft", run,
              f"checkpoint={out}/sft/checkpoint", *rft),
        stage("evaluate GRPO", "evaluation.run", *config("evaluate"), videos, f"checkpoint={out}/rft/checkpoint",
              f"out={out}/eval_grpo"),
        stage("export", "scripts.export", "--checkpoint", f"{out}/rft/checkpoint", "--out", f"{out}/export"),
        stage("reload the export", "scripts.check_export", "--export", f"{out}/export", *drawn),
        stage("annotated videos", "evaluation.draw", *drawn, "--out", f"{out}/annotated", "--count", "3"),
        stage("contact sheet", "evaluation.contact_sheet", *drawn, "--out", f"{out}/contact_sheet.png"),
        stage("curves", "evaluation.curves", "--runs", f"{out}/sft_frames", f"{out}/sft", f"{out}/rft", "--out", f"{out}/curves.png"),
    ]  # fmt: skip


def run_once(stage: Stage, record: Path) -> None:
    """Run a stage unless this very command has finished before; note its duration, over all attempts."""
    seconds, key = finished(record), stage.key
    logger.info("== %s\n   %s", stage.title, shlex.join([*(f"{k}={v}" for k, v in stage.environment.items()), key]))
    if key in seconds:
        logger.info("finished before")
        return
    started = time.time()
    command = [sys.executable, *stage.command[1:]]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | stage.environment)
    write_atomically(record, json.dumps(seconds | {key: round(time.time() - started, 1)}, indent=2) + "\n")


def finished(record: Path) -> dict[str, float]:
    """Commands that have finished, with their seconds."""
    return json.loads(record.read_text()) if record.exists() else {}


if __name__ == "__main__":
    main()
