"""Every stage of the main job on a laptop: rendered videos and a tiny model, but real mp4, TRL, Ray, vLLM and export.

    make demo         =  python -m scripts.demo --configs configs/demo --out outputs/demo
    make demo-full    =  python -m scripts.demo --configs configs/demo_full --out outputs/demo_full

Each stage is the command that a user would run; it is printed before it runs. Started again after a kill, finished
stages are skipped and the interrupted one goes on from its last checkpoint.
"""

import argparse
import hashlib
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from configs.base import config_files
from configs.checkpoints import write_atomically
from configs.command_line import check_out_folder, end_with_reason, explained
from configs.run import ROOT, quiet_environment, setup_logging
from model.grounders import GROUNDERS, grounder_class
from scripts.demo_summary import HELD_OUT, provenance, publish, run_record, show, table, write_summary

logger = logging.getLogger("demo")

TWO_RANKS = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Stage:
    """One command; `module` is what follows `python -m`. after: the key of the stage whose outcome it takes, if it is told."""

    title: str
    module: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: str = ""

    @property
    def command(self) -> list[str]:
        return ["python", "-m", *self.module, *self.arguments]

    @property
    def key(self) -> str:
        """What a finished stage is known by: its command, what its configs and those that they include say, and `after`."""
        named = [ROOT / word for word in self.arguments if word.endswith(".yaml")]
        configs = b"".join(path.read_bytes() for config in named for path in config_files(config))
        digest = hashlib.sha256(configs + self.after.encode()).hexdigest()[:12]
        return f"{shlex.join(self.command)}  # configs {digest}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"))
    parser.add_argument("--out", type=Path, default=Path("outputs/demo"))
    parser.add_argument("--seed", type=int, default=0, help="of the backbone's weights and of every stage")
    parser.add_argument("--sft-steps", type=int, help="of each supervised stage, instead of the config's")
    parser.add_argument("--rft-steps", type=int, help="instead of the config's")
    parser.add_argument("--grounder", choices=GROUNDERS, default="bridge", help="what the model answers with")
    parser.add_argument("--results", type=Path, help="path without ending: also write the tables and pictures there")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    demo = stages(arguments.configs, arguments.out, data=arguments.out, seed=arguments.seed,
                  sft_steps=arguments.sft_steps, rft_steps=arguments.rft_steps,
                  grounder=arguments.grounder)  # fmt: skip
    make_out_folder(arguments.out, demo)
    seconds = [run_once(stage, arguments.out / "stages.json") for stage in demo]
    summary = write_summary(arguments.out, data=arguments.out, minutes=sum(seconds) / 60)
    show(arguments.out, summary)
    if arguments.results is not None:
        record = run_record("scripts.demo", [arguments.out])
        text = "\n\n".join(["# " + arguments.results.name, *provenance(record), table(summary)]) + "\n"
        publish(arguments.out, arguments.results, record | {"summary": summary}, text)


def stages(
    configs: Path, out: Path, *, data: Path, seed: int, sft_steps: int | None = None, rft_steps: int | None = None,
    grounder: str = "bridge",
) -> list[Stage]:  # fmt: skip
    """Render, make a backbone, SFT on frames, SFT on videos, evaluate, GRPO, evaluate, export, reload, draw.

    data: where the videos are, or will be.
    """
    videos, frames = f"data.source.root={data}/videos", f"data.source.root={data}/frames"
    sft = () if sft_steps is None else (f"max_steps={sft_steps}",)
    # Later stages have that of the checkpoint that they start from.
    chosen = () if grounder == "bridge" else (f"model.grounder={grounder}",)
    answers = grounder_class(grounder).answer_format
    words = () if answers == "span" else ("--answer-formats", answers)
    run = f"run.seed={seed}"
    drawn = ("--annotations", f"{data}/videos/{HELD_OUT}", "--predictions", f"{out}/eval_grpo/predictions.jsonl")

    def config(name: str) -> tuple[str, str]:
        return "--config", str(configs / f"{name}.yaml")

    return [
        Stage("render videos", ("data.prepare",), (*config("sft"), videos)),
        Stage("render frames", ("data.prepare",), (*config("sft_frames"), frames)),
        Stage("tiny backbone", ("model.tiny_backbone",),
              (*config("sft"), *words, "--out", f"{out}/backbone", "--seed", str(seed), videos)),
        Stage("SFT on single frames", (*TWO_RANKS, "sft.train"), (*config("sft_frames"), frames,
              f"run.out={out}/sft_frames", run, f"model.backbone={out}/backbone", *chosen, *sft), ONE_THREAD),
        Stage("SFT on videos", (*TWO_RANKS, "sft.train"), (*config("sft"), videos,
              f"run.out={out}/sft", run, f"checkpoint={out}/sft_frames/checkpoint", *sft), ONE_THREAD),
        Stage("evaluate SFT", ("evaluation.run",),
              (*config("evaluate"), videos, f"checkpoint={out}/sft/checkpoint", f"out={out}/eval_sft")),
        *grpo_stages(configs, out, data=data, seed=seed, max_steps=rft_steps, grounder=grounder),
        Stage("export", ("scripts.export",), ("--checkpoint", f"{out}/rft/checkpoint", "--out", f"{out}/export")),
        Stage("reload the export", ("scripts.check_export",), ("--export", f"{out}/export", *drawn)),
        Stage("annotated videos", ("evaluation.draw",), (*drawn, "--out", f"{out}/annotated", "--count", "3")),
        Stage("contact sheet", ("evaluation.contact_sheet",), (*drawn, "--out", f"{out}/contact_sheet.png")),
        Stage("curves", ("evaluation.curves",), ("--runs", f"{out}/sft_frames", f"{out}/sft", f"{out}/rft",
              "--out", f"{out}/curves.png")),
    ]  # fmt: skip


def grpo_stages(
    configs: Path, out: Path, *, data: Path, seed: int, max_steps: int | None = None, update: str | None = None,
    grounder: str = "bridge",
) -> list[Stage]:  # fmt: skip
    """GRPO from the supervised checkpoint, and its evaluation; `update`: another `decoder_update` than the config's."""
    name, videos = "" if update is None else f"_{update}", f"data.source.root={data}/videos"
    changes = () if max_steps is None else (f"max_steps={max_steps}",)
    changes += () if update is None else (f"objective.decoder_update={update}",)
    # Boxes as text: up to two for each of 8 seconds, and no decoder to train.
    written = ("rollout.max_model_len=1024", "objective.decoder_update=frozen")
    changes += written if grounder_class(grounder).writes_boxes else ()
    return [
        Stage(f"GRPO{name}", ("rft.train",), ("--config", str(configs / "rft.yaml"), videos, f"run.out={out}/rft{name}",
              f"run.seed={seed}", f"checkpoint={out}/sft/checkpoint", *changes)),
        Stage(f"evaluate GRPO{name}", ("evaluation.run",), ("--config", str(configs / "evaluate.yaml"), videos,
              f"checkpoint={out}/rft{name}/checkpoint", f"out={out}/eval_grpo{name}")),
    ]  # fmt: skip


def make_out_folder(out: Path, stages: Iterable[Stage]) -> None:
    """Make the folder; a config of a stage that is missing or no YAML ends the process with status 2, and makes nothing."""
    with explained():
        check_out_folder(out)
        for stage in stages:
            _ = stage.key
    out.mkdir(parents=True, exist_ok=True)


def in_turn(stages: Iterable[Stage], *, after: str = "") -> list[Stage]:
    """Each stage after the one before it, so that a change of one makes all that follow run again."""
    chained = []
    for stage in stages:
        chained.append(replace(stage, after=after))
        after = chained[-1].key
    return chained


def run_once(stage: Stage, record: Path) -> float:
    """Run a stage unless it has finished before; note how long the attempt that finished it took.

    A stage that fails has said why: it ends the process with status 1 and one line that names it.
    """
    seconds, key = finished(record), stage.key
    shown = [*(f"{name}={value}" for name, value in stage.environment.items()), *stage.command]
    logger.info("== %s\n   %s", stage.title, shlex.join(shown))
    if key in seconds:
        logger.info("finished before")
        return seconds[key]
    started = time.time()
    command = [sys.executable, *stage.command[1:]]
    status = subprocess.run(command, cwd=ROOT, env=os.environ | stage.environment).returncode
    if status != 0:
        end_with_reason(f"stage {stage.title!r} failed, {ending(status)}", status=1)
    seconds[key] = round(time.time() - started, 1)
    write_atomically(record, json.dumps(seconds, indent=2) + "\n")
    return seconds[key]


def ending(status: int) -> str:
    """How a process with this `returncode` ended; a negative one is the signal that killed it."""
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def finished(record: Path) -> dict[str, float]:
    """Keys of the stages that have finished, with their seconds."""
    return json.loads(record.read_text()) if record.exists() else {}


if __name__ == "__main__":
    main()
