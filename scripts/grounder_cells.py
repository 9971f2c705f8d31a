"""The cells of the comparison of grounders (configs/grounders/grounders.yaml), one for each grounder and seed, and their stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from configs.base import Config, load_config
from configs.evaluation import EvaluationConfig
from configs.rft import RFTConfig
from configs.sft import SFTConfig
from scripts.ablation_cells import Changes, Name, check_changes, overrides
from scripts.demo import ONE_THREAD, TWO_RANKS, Stage, in_turn

TITLES = {"sft": "SFT", "grpo": "SFT + GRPO"}
"""Of the steps after which a cell is asked about the held-out videos, in its folders eval_sft and eval_grpo."""
STEPS = tuple(TITLES)
RECORD = "stages.json"
"""Of the stages that have finished: of a cell in its folder, so that cells may run side by side; of the base above them."""


class ComparedGrounder(Config):
    """What a grounder changes of the configs that all share."""

    about: str
    sft: Changes = {}
    rft: Changes = {}
    evaluate: Changes = {}


class GrounderTable(Config):
    """grounders.yaml."""

    grounders: Annotated[dict[Name, ComparedGrounder], Field(min_length=2)]


def load_grounders(configs: Path) -> dict[str, ComparedGrounder]:
    """The table of a folder of configs, all of them checked. Raises ConfigError with file, grounder and key."""
    path = configs / "grounders.yaml"
    grounders = load_config(GrounderTable, path).grounders
    for name, grounder in grounders.items():
        check_changes(SFTConfig, configs / "sft.yaml", grounder.sft, origin=f"{path}: {name}.sft")
        check_changes(RFTConfig, configs / "rft.yaml", grounder.rft, origin=f"{path}: {name}.rft")
        check_changes(EvaluationConfig, configs / "evaluate.yaml", grounder.evaluate, origin=f"{path}: {name}.evaluate")
    return grounders


def cell_folder(out: Path, name: str, seed: int) -> Path:
    """Where sft/, eval_sft/, rft/, eval_grpo/ and the record of a cell are."""
    return out / "cells" / name / f"seed{seed}"


def base_stages(configs: Path, out: Path) -> list[Stage]:
    """Render, make a backbone, and teach it what a released MLLM knows: the MLLM that all cells start from."""
    frames, videos = f"data.source.root={out}/frames", f"data.source.root={out}/videos"

    def config(name: str) -> tuple[str, str]:
        return "--config", str(configs / f"{name}.yaml")

    return in_turn([
        Stage("render frames", ("data.prepare",), (*config("base_states"), frames)),
        Stage("render videos", ("data.prepare",), (*config("sft"), videos)),
        Stage("tiny backbone", ("model.tiny_backbone",),
              (*config("base_states"), frames, "--out", f"{out}/backbone", "--answer-formats", "span", "tube")),
        Stage("base: what a sentence is about", (*TWO_RANKS, "sft.train"), (*config("base_states"), frames,
              f"run.out={out}/base_states", f"model.backbone={out}/backbone"), ONE_THREAD),
        Stage("base: written boxes", (*TWO_RANKS, "sft.train"), (*config("base_boxes"), frames,
              f"run.out={out}/base_boxes", f"model.backbone={out}/base_states/checkpoint/mllm"), ONE_THREAD),
        Stage("base: when it is", ("sft.train",), (*config("base_videos"), videos,
              f"run.out={out}/base_videos", f"model.backbone={out}/base_boxes/checkpoint/mllm"), ONE_THREAD),
        Stage("base: written tubes", ("sft.train",), (*config("base_tubes"), videos,
              f"run.out={out}/base_tubes", f"model.backbone={out}/base_videos/checkpoint/mllm"), ONE_THREAD),
    ])  # fmt: skip


def latency_stage(out: Path) -> Stage:
    """How long a tube of 20 frames takes with each grounder."""
    return Stage("latency of a tube", ("benchmarks.tube_latency",), ("--json", "--out", f"{out}/latency.json"))


def cell_stages(configs: Path, out: Path, name: str, grounder: ComparedGrounder, seed: int) -> list[Stage]:
    """SFT, its evaluation, GRPO, its evaluation: after the base, and again where that has changed. Training and answers have one
    thread, so that several cells may run side by side; vLLM takes the cores that it is let (`taskset -c 0`: one)."""
    folder, videos, run = cell_folder(out, name, seed), f"data.source.root={out}/videos", f"run.seed={seed}"

    def evaluate(step: str, trained: str) -> Stage:
        where = (f"checkpoint={folder}/{trained}/checkpoint", f"out={folder}/eval_{step}")
        return Stage(f"{name}, seed {seed}: evaluate {step}", ("evaluation.run",),
                     ("--config", str(configs / "evaluate.yaml"), videos, *where, *overrides(grounder.evaluate)), ONE_THREAD)  # fmt: skip

    return in_turn([
        Stage(f"{name}, seed {seed}: SFT", ("sft.train",), ("--config", str(configs / "sft.yaml"), videos, run,
              f"run.out={folder}/sft", f"model.backbone={out}/base_tubes/checkpoint/mllm",
              *overrides(grounder.sft)), ONE_THREAD),
        evaluate("sft", "sft"),
        Stage(f"{name}, seed {seed}: GRPO", ("rft.train",), ("--config", str(configs / "rft.yaml"), videos, run,
              f"run.out={folder}/rft", f"checkpoint={folder}/sft/checkpoint", *overrides(grounder.rft)), ONE_THREAD),
        evaluate("grpo", "rft"),
    ], after=base_stages(configs, out)[-1].key)  # fmt: skip


def all_stages(
    configs: Path, out: Path, grounders: Mapping[str, ComparedGrounder], seeds: list[int]
) -> list[tuple[Path, Stage]]:
    """Record and stage of every cell, seed by seed, so that a comparison of fewer seeds is there early."""
    return [
        (cell_folder(out, name, seed) / RECORD, stage)
        for seed in seeds
        for name, grounder in grounders.items()
        for stage in cell_stages(configs, out, name, grounder, seed)
    ]
