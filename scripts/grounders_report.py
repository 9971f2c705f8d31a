"""The report of a comparison of grounders, from the cells that have been evaluated: tables, a figure, and the order.

python -m scripts.grounders_report --configs configs/grounders --out outputs/grounders --results docs/results/grounders
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs.base import ConfigError
from configs.checkpoints import write_atomically
from configs.command_line import explained
from configs.run import setup_logging
from evaluation.metrics import Scores, paired_difference, score, summarize
from evaluation.predict import PREDICTIONS, WRONG_QUERY_PREDICTIONS
from evaluation.predictions import read_predictions
from scripts.demo_summary import held_out_samples, run_record
from scripts.grounder_cells import STEPS, ComparedGrounder, cell_folder, load_grounders
from scripts.grounders_ceiling import ceiling
from scripts.grounders_figure import draw_grounders
from scripts.grounders_text import markdown
from scripts.seed_scores import BOOTSTRAP, by_seed, mean_scores, seed_differences, train_minutes

TRAINED = {"sft": "sft", "grpo": "rft"}
"""Run folder that a step's answers come from."""


@dataclass(frozen=True)
class Answered:
    """One cell after one step: scores of the held-out sentences, right and wrong, and what answers and training took.

    seconds_per_sample: of the answers to the right sentences. minutes: of the training's steps.
    """

    right: Scores
    wrong: Scores
    generated_tokens: float
    seconds_per_sample: float
    minutes: float


Runs = Mapping[str, Mapping[str, Mapping[int, Answered]]]
"""Step -> grounder -> seed."""
Entry = dict[str, Any]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path("configs/grounders"), help="folder of the configs")
    parser.add_argument("--out", type=Path, default=Path("outputs/grounders"), help="of scripts.compare_grounders")
    parser.add_argument("--results", type=Path, required=True, help="path without its ending, of the report")
    arguments = parser.parse_args()
    setup_logging()
    with explained():
        grounders = load_grounders(arguments.configs)
        publish(grounders, arguments.out, arguments.results, module="scripts.grounders_report")


def publish(grounders: Mapping[str, ComparedGrounder], out: Path, results: Path, *, module: str) -> None:
    """{results}.json, {results}.md and {results}.png. Raises ConfigError where no cell has been evaluated."""
    runs = read_runs(grounders, out)
    if not any(runs.values()):
        raise ConfigError(f"{out}: no cell has been evaluated; run scripts.compare_grounders first, or give its --out")
    name, seeds = next((name, seeds) for of_step in runs.values() for name, seeds in of_step.items())
    example = cell_folder(out, name, min(seeds))
    latency = out / "latency.json"
    record = run_record(module, [out, *sorted(out.glob("cells/*/*"))]) | {
        "grounders": {name: grounder.model_dump() for name, grounder in grounders.items()},
        "num_videos": len({sample.video_path for sample in held_out_samples(out)}),
        "configs": {step: yaml.safe_load((example / step / "config.yaml").read_text()) for step in trained(example)},
        "steps": {step: {name: entry(seeds) for name, seeds in of_step.items()} for step, of_step in runs.items()},
        "differences": {step: differences(of_step) for step, of_step in runs.items()},
        "grpo_minus_sft": gains(runs),
        "ceiling": ceilings(runs, out),
        "latency": json.loads(latency.read_text()) if latency.exists() else None,
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(results.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_atomically(results.with_suffix(".md"), markdown(record, picture=f"{results.name}.png"))
    draw_grounders(record, results.with_suffix(".png"))


def trained(folder: Path) -> list[str]:
    """The run folders of a cell that hold a finished training."""
    return [name for name in TRAINED.values() if (folder / name / "checkpoint").exists()]


def read_runs(grounders: Mapping[str, ComparedGrounder], out: Path) -> Runs:
    """The cells that have been evaluated, grounders in the order of the table."""
    samples = held_out_samples(out)
    runs: dict[str, dict[str, dict[int, Answered]]] = {step: {} for step in STEPS}
    for step in STEPS:
        for name in grounders:
            for path in sorted(out.glob(f"cells/{name}/seed*/eval_{step}/metrics.json")):
                cell = path.parent.parent
                right, wrong = (score(samples, read_predictions(path.parent / file)) for file in _FILES)
                cost = json.loads(path.read_text())
                run = Answered(right, wrong, cost["generated_tokens"], cost["seconds_per_sample"],
                               train_minutes(cell / TRAINED[step]))  # fmt: skip
                runs[step].setdefault(name, {})[int(cell.name.removeprefix("seed"))] = run
    return runs


_FILES = (PREDICTIONS, WRONG_QUERY_PREDICTIONS)


def entry(runs: Mapping[int, Answered]) -> Entry:
    """Of one grounder after one step: means over seeds with intervals over sentences, and what it took."""
    right, wrong = mean_scores([run.right for run in runs.values()]), mean_scores([run.wrong for run in runs.values()])
    return {
        "seeds": list(runs),
        "values": summarize(right, **BOOTSTRAP),
        "by_seed": by_seed([run.right for run in runs.values()]),
        "right_minus_wrong": paired_difference(right, wrong, **BOOTSTRAP),
        "generated_tokens": round(float(np.mean([run.generated_tokens for run in runs.values()])), 1),
        "seconds_per_sample": round(float(np.mean([run.seconds_per_sample for run in runs.values()])), 4),
        "minutes": round(float(np.mean([run.minutes for run in runs.values()])), 2),
    }


def ceilings(runs: Runs, out: Path) -> dict[str, Entry]:
    """What the truth scores as each grounder writes it."""
    samples, of_sft = held_out_samples(out), runs["sft"]
    return {
        name: summarize(ceiling(samples, cell_folder(out, name, min(seeds)) / "sft", name), **BOOTSTRAP)
        for name, seeds in of_sft.items()
    }


def differences(runs: Mapping[str, Mapping[int, Answered]]) -> dict[str, Entry]:
    """`a - b` for every two grounders, over the seeds that both have."""
    return {
        f"{a} - {b}": _paired(runs[a], runs[b]) for a, b in combinations(runs, 2) if runs[a].keys() & runs[b].keys()
    }


def gains(runs: Runs) -> dict[str, Entry]:
    """What GRPO adds to each grounder."""
    before, after = (runs[step] for step in STEPS)
    return {name: _paired(after[name], before[name]) for name in after if name in before}


def _paired(ours: Mapping[int, Answered], theirs: Mapping[int, Answered]) -> Entry:
    shared = sorted(ours.keys() & theirs.keys())
    return seed_differences([ours[seed].right for seed in shared], [theirs[seed].right for seed in shared])


if __name__ == "__main__":
    main()
