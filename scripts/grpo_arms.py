"""What goes on from one supervised checkpoint (configs/grpo_study/arms.yaml): the arms of a study of GRPO, and their stages.

The checkpoint is the one with the lowest validation loss of a supervised training on the videos that all arms train on. The first
GRPO arm of a grounder sets the time. The other GRPO arms take as many steps, and supervised ones as many as fit into its time, by
the seconds that a step took when the checkpoint was trained. That is fair where both had the same cores: training has one thread
in both, and vLLM takes the cores that it is let, so start the study with `taskset -c 0`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Config, ConfigError, load_config
from configs.checkpoints import CheckpointStore, write_atomically
from configs.evaluation import EvaluationConfig
from configs.rft import RFTConfig
from configs.sft import SFTConfig
from scripts.ablation_cells import Changes, Name, check_changes, overrides
from scripts.demo import ONE_THREAD, Stage, in_turn
from scripts.seed_scores import seconds_per_step, train_minutes

Kind = Literal["grpo", "supervised"]
START = "start"
"""The run folder of the supervised training that all arms go on from."""


class Arms(Config):
    """How a grounder's checkpoint is trained, and what goes on from it, each with its changes of sft_start.yaml, rft.yaml, sft.yaml."""

    start: Changes = {}
    grpo: Annotated[dict[Name, Changes], Field(min_length=1)]
    """The first one sets the time of all."""
    supervised: dict[Name, Changes] = {}
    evaluate: Changes = {}
    """Of evaluate.yaml, for all arms of the grounder."""

    @property
    def names(self) -> list[str]:
        """Of all arms, in the order in which they run."""
        return [*self.grpo, *self.supervised]

    @model_validator(mode="after")
    def _own_names(self) -> "Arms":
        if both := sorted(self.grpo.keys() & self.supervised.keys()):
            raise ValueError(f"grpo, supervised: expected different names, {both[0]} is in both")
        if taken := sorted({START, "checkpoint"} & {*self.names}):
            raise ValueError(f"grpo, supervised: {taken[0]} is what all arms go on from, expected another name")
        return self


class ArmTable(Config):
    """arms.yaml."""

    grounders: Annotated[dict[Name, Arms], Field(min_length=1)]


def load_arms(configs: Path) -> dict[str, Arms]:
    """The table of a folder of configs, all of them checked. Raises ConfigError with file, arm and key."""
    path = configs / "arms.yaml"
    grounders = load_config(ArmTable, path).grounders
    for name, arms in grounders.items():
        check_changes(SFTConfig, configs / "sft_start.yaml", arms.start, origin=f"{path}: {name}.start")
        for arm, changes in arms.grpo.items():
            check_changes(RFTConfig, configs / "rft.yaml", changes, origin=f"{path}: {name}.grpo.{arm}")
        for arm, changes in arms.supervised.items():
            check_changes(SFTConfig, configs / "sft.yaml", changes, origin=f"{path}: {name}.supervised.{arm}")
        check_changes(EvaluationConfig, configs / "evaluate.yaml", arms.evaluate, origin=f"{path}: {name}.evaluate")
        _check_start(name, arms, configs)
    return grounders


def _check_start(name: str, arms: Arms, configs: Path) -> None:
    """A supervised arm that writes its prompts otherwise than the checkpoint would be refused when its turn comes, and a training
    that is not validated, or not where it is saved, has no checkpoint to go on from."""
    start = load_config(SFTConfig, configs / "sft_start.yaml", overrides(arms.start))
    every, saved = start.validation.every_steps, start.checkpoints.every_steps
    if every is None or saved is None or saved % every or start.max_steps < saved or not start.checkpoints.keep_best:
        raise ConfigError(
            f"{configs / 'sft_start.yaml'}: {name}: expected checkpoints.keep_best, and checkpoints.every_steps (got {saved}) within "
            f"max_steps ({start.max_steps}) and a multiple of validation.every_steps ({every})"
        )
    for arm, changes in arms.supervised.items():
        asked = load_config(SFTConfig, configs / "sft.yaml", overrides(changes)).data.prompt
        if asked != start.data.prompt:
            raise ConfigError(
                f"{configs / 'arms.yaml'}: {name}.supervised.{arm}: data.prompt is {asked}, the checkpoint's {start.data.prompt}"
            )


def study_folder(out: Path, grounder: str, seed: int) -> Path:
    """Where the run folders of the arms are, and their eval_*."""
    return out / "grpo" / grounder / f"seed{seed}"


def best_checkpoint(trained: Path) -> Path:
    """The one of a run folder with the lowest validation loss. Raises ConfigError where none was validated."""
    store = CheckpointStore(trained, load_config(SFTConfig, trained / "config.yaml").checkpoints)
    if (best := store.best()) is None:
        raise ConfigError(f"{store.folder}: no checkpoint has a validation loss; expected validation.every_steps")
    return store.path(best[0])


def start_stage(configs: Path, out: Path, grounder: str, arms: Arms, seed: int, *, after: str = "") -> Stage:
    """Train what all arms go on from, after the stage that made its MLLM."""
    run = (f"run.out={study_folder(out, grounder, seed) / START}", f"run.seed={seed}", f"data.source.root={out}/videos")
    backbone = f"model.backbone={out}/base_tubes/checkpoint/mllm"
    words = ("--config", str(configs / "sft_start.yaml"), *run, backbone, *overrides(arms.start))
    return Stage(f"{grounder}, seed {seed}: {START}", ("sft.train",), words, ONE_THREAD, after)


def arm_stages(configs: Path, out: Path, grounder: str, arms: Arms, seed: int, *, after: str = "") -> Iterator[Stage]:
    """Train and evaluate every arm, after the stage of the checkpoint, which has to be there; a supervised one is made up when
    GRPO has run, whose time it gets."""
    yield from in_turn([evaluate(configs, out, grounder, arms, seed, "checkpoint")], after=after)
    first = None
    for arm, changes in arms.grpo.items():
        stages = [_train(configs, out, grounder, seed, arm, "grpo", changes)]
        stages = in_turn([*stages, evaluate(configs, out, grounder, arms, seed, arm)], after=after)
        first = first or stages[0].key
        yield from stages
    for arm, changes in arms.supervised.items():
        steps = steps_in_time(study_folder(out, grounder, seed), first=next(iter(arms.grpo)), run=first or "")
        stages = [_train(configs, out, grounder, seed, arm, "supervised", changes | {"max_steps": steps})]
        yield from in_turn([*stages, evaluate(configs, out, grounder, arms, seed, arm)], after=after)


def _train(configs: Path, out: Path, grounder: str, seed: int, arm: str, kind: Kind, changes: Changes) -> Stage:
    module, name = ("rft.train", "rft") if kind == "grpo" else ("sft.train", "sft")
    folder = study_folder(out, grounder, seed)
    run = (f"run.out={folder}/{arm}", f"run.seed={seed}", f"data.source.root={out}/videos")
    start = f"checkpoint={best_checkpoint(folder / START)}"
    words = ("--config", str(configs / f"{name}.yaml"), *run, start, *overrides(changes))
    return Stage(f"{grounder}, seed {seed}: {arm}", (module,), words, ONE_THREAD)


def evaluate(configs: Path, out: Path, grounder: str, arms: Arms, seed: int, arm: str) -> Stage:
    """Held-out answers of an arm, or of the `checkpoint` that all start from."""
    folder = study_folder(out, grounder, seed)
    trained = best_checkpoint(folder / START) if arm == "checkpoint" else folder / arm / "checkpoint"
    where = (f"data.source.root={out}/videos", f"checkpoint={trained}", f"out={folder}/eval_{arm}")
    words = ("--config", str(configs / "evaluate.yaml"), *where, *overrides(arms.evaluate))
    return Stage(f"{grounder}, seed {seed}: evaluate {arm}", ("evaluation.run",), words, ONE_THREAD)


def steps_in_time(folder: Path, *, first: str, run: str) -> int:
    """How many supervised steps take the time of the first GRPO arm, both by the median time of a step.

    folder: of a grounder and a seed. run: which run of that arm it is. Found once for it, and noted: a study started again is
    the same.
    """
    note = folder / "supervised_steps.json"
    if not note.exists() or json.loads(note.read_text())["run"] != run:
        minutes, step_sec = train_minutes(folder / first), seconds_per_step(folder / START)
        found = {"run": run, "minutes": minutes, "step_sec": step_sec, "steps": max(1, round(60 * minutes / step_sec))}
        write_atomically(note, json.dumps(found, indent=1) + "\n")
    return json.loads(note.read_text())["steps"]
