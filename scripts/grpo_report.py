"""The report of a study of GRPO, from the arms that have been evaluated: tables, a figure, and what follows.

python -m scripts.grpo_report --configs configs/grpo_study --out outputs/grounders --results docs/results/grpo
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs.base import ConfigError
from configs.checkpoints import PREFIX
from configs.command_line import explained
from configs.run import read_metrics, setup_logging
from evaluation.metrics import Scores
from scripts.demo_seeds import signal
from scripts.demo_summary import held_out_samples, run_record
from scripts.grpo_arms import START, Arms, best_checkpoint, load_arms, study_folder
from scripts.grpo_figure import draw_arms
from scripts.grpo_text import markdown
from scripts.reports import study_parser, write_report
from scripts.seed_scores import (
    right_and_wrong,
    seconds_per_step,
    seed_of,
    shared_seed_differences,
    summarize_seeds,
    train_minutes,
)

CHECKPOINT = "checkpoint"
"""What all arms of a grounder start from, among them."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Answered:
    """One arm with one seed. minutes, steps: of its training; the checkpoint's until it was stopped. ends: rewards, their spread
    within groups and the entropy in the first and the last steps of GRPO. validation: losses of the checkpoint's training by step."""

    right: Scores
    wrong: Scores
    minutes: float = 0.0
    steps: int = 0
    ends: Mapping[str, list[float]] | None = None
    validation: Mapping[int, float] | None = None


Runs = Mapping[str, Mapping[str, Mapping[int, Answered]]]
"""Grounder -> arm, the checkpoint first -> seed."""


def main() -> None:
    """Entry point."""
    arguments = study_parser(__doc__, configs="configs/grpo_study", out="outputs/grounders").parse_args()
    setup_logging()
    with explained():
        arms = load_arms(arguments.configs)
        publish(arms, arguments.out, arguments.results, module="scripts.grpo_report")


def publish(grounders: Mapping[str, Arms], out: Path, results: Path, *, module: str) -> None:
    """{results}.json, {results}.md and {results}.png. Raises ConfigError where no arm has been evaluated."""
    runs = read_runs(grounders, out)
    if not runs:
        raise ConfigError(f"{out}: no arm has been evaluated; run scripts.grpo_study first, or give its --out")
    record = run_record(module, [out, *sorted(out.glob("grpo/*/*"))]) | {
        "num_videos": len({sample.video_path for sample in held_out_samples(out)}),
        "arms": {name: arms.model_dump() for name, arms in grounders.items()},
        "configs": configs_of(out, runs),
        "grounders": {name: summarize_arms(grounders[name], arms) for name, arms in runs.items()},
    }
    write_report(results, record, markdown, draw_arms)


def read_runs(grounders: Mapping[str, Arms], out: Path) -> Runs:
    """The arms that have been evaluated, in the order of the table."""
    samples = held_out_samples(out)
    runs: dict[str, dict[str, dict[int, Answered]]] = {name: {} for name in grounders}
    for name, arms in grounders.items():
        for arm in (CHECKPOINT, *arms.names):
            for path in sorted(out.glob(f"grpo/{name}/seed*/eval_{arm}/metrics.json")):
                folder = path.parent.parent
                told = stopped(folder / START) if arm == CHECKPOINT else what_it_took(folder / arm)
                runs[name].setdefault(arm, {})[seed_of(folder)] = Answered(
                    *right_and_wrong(samples, path.parent), **told
                )
    return {name: arms for name, arms in runs.items() if len(arms) > 1}


def what_it_took(trained: Path) -> dict[str, Any]:
    """Minutes, steps, and of GRPO the signal."""
    rows = read_metrics(trained / "metrics.jsonl")
    is_grpo = any("reward/total" in row for row in rows)
    return {"minutes": train_minutes(trained), "steps": rows[-1]["step"], "ends": signal(rows) if is_grpo else None}


def stopped(trained: Path) -> dict[str, Any]:
    """Steps and minutes up to the checkpoint with the lowest validation loss, and the losses."""
    steps = int(best_checkpoint(trained).name.removeprefix(PREFIX))
    rows = [row for row in read_metrics(trained / "metrics.jsonl") if "validation/loss" in row]
    return {
        "minutes": round(seconds_per_step(trained) * steps / 60, 2),
        "steps": steps,
        "validation": {row["step"]: row["validation/loss"] for row in rows},
    }


def configs_of(out: Path, runs: Runs) -> Entry:
    """The resolved config of each arm's first run, and of the checkpoint's."""
    return {
        f"{name}/{arm}": yaml.safe_load((study_folder(out, name, min(seeds)) / folder / "config.yaml").read_text())
        for name, arms in runs.items()
        for arm, seeds in arms.items()
        for folder in [START if arm == CHECKPOINT else arm]
    }


def summarize_arms(arms: Arms, runs: Mapping[str, Mapping[int, Answered]]) -> Entry:
    """Of each arm its scores and what it took; of each difference that is asked about, the paired one."""
    return {
        "arms": {arm: entry(seeds) for arm, seeds in runs.items()},
        "differences": {
            f"{a} - {b}": shared_seed_differences(runs[a], runs[b])
            for a, b in compared(arms)
            if runs.get(a, {}).keys() & runs.get(b, {}).keys()
        },
    }


def compared(arms: Arms) -> Iterator[tuple[str, str]]:
    """Each arm against the checkpoint, each GRPO arm against each supervised one, and GRPO arms with one another."""
    yield from ((arm, CHECKPOINT) for arm in arms.names)
    yield from ((grpo, supervised) for grpo in arms.grpo for supervised in arms.supervised)
    yield from pairwise(arms.grpo)


def entry(runs: Mapping[int, Answered]) -> Entry:
    """Means over seeds with intervals over sentences."""
    signals = [run.ends for run in runs.values() if run.ends is not None]
    return {
        "seeds": list(runs),
        **summarize_seeds(runs),
        "minutes": [run.minutes for run in runs.values()],
        "steps": [run.steps for run in runs.values()],
        "signal": {name: np.mean([ends[name] for ends in signals], axis=0).tolist() for name in signals[0]}
        if signals
        else None,
        "validation": [run.validation for run in runs.values() if run.validation is not None] or None,
    }


if __name__ == "__main__":
    main()
