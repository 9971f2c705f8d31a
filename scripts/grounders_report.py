"""The report of a comparison of grounders, from the cells that have been evaluated: tables, a figure, and the order.

python -m scripts.grounders_report --configs configs/grounders --out outputs/grounders --results docs/results/grounders
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from configs.base import ConfigError
from configs.command_line import explained
from configs.run import setup_logging
from data.types import GroundingSample
from evaluation.metrics import Scores, summarize
from scripts.demo_summary import held_out_samples, run_record
from scripts.grounder_cells import STEPS, ComparedGrounder, cell_folder, load_grounders
from scripts.grounders_ceiling import ceiling
from scripts.grounders_figure import draw_grounders
from scripts.grounders_text import markdown
from scripts.reports import study_parser, write_report
from scripts.seed_scores import (
    BOOTSTRAP,
    right_and_wrong,
    seed_of,
    shared_seed_differences,
    summarize_seeds,
    train_minutes,
)

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
    arguments = study_parser(__doc__, configs="configs/grounders", out="outputs/grounders").parse_args()
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
    latency, samples = out / "latency.json", held_out_samples(out)
    record = run_record(module, [out, *sorted(out.glob("cells/*/*"))]) | {
        "grounders": {name: grounder.model_dump() for name, grounder in grounders.items()},
        "num_videos": len({sample.video_path for sample in samples}),
        "configs": configs_of(example),
        "steps": {step: {name: entry(seeds) for name, seeds in of_step.items()} for step, of_step in runs.items()},
        "differences": {step: differences(of_step) for step, of_step in runs.items()},
        "grpo_minus_sft": gains(runs),
        "ceiling": ceilings(runs["sft"], samples, out),
        "latency": json.loads(latency.read_text()) if latency.exists() else None,
    }
    write_report(results, record, markdown, draw_grounders)


def configs_of(cell: Path) -> dict[str, Any]:
    """The resolved configs of a cell's finished trainings, and of an evaluation of it."""
    trained = {name: cell / name for name in TRAINED.values() if (cell / name / "checkpoint").exists()}
    folders = trained | {"evaluate": next(cell.glob("eval_*"))}
    return {name: yaml.safe_load((folder / "config.yaml").read_text()) for name, folder in folders.items()}


def read_runs(grounders: Mapping[str, ComparedGrounder], out: Path) -> Runs:
    """The cells that have been evaluated, grounders in the order of the table."""
    samples = held_out_samples(out)
    runs: dict[str, dict[str, dict[int, Answered]]] = {step: {} for step in STEPS}
    for step in STEPS:
        for name in grounders:
            for path in sorted(out.glob(f"cells/{name}/seed*/eval_{step}/metrics.json")):
                cell = path.parent.parent
                scores, minutes = right_and_wrong(samples, path.parent), train_minutes(cell / TRAINED[step])
                runs[step].setdefault(name, {})[seed_of(cell)] = Answered(*scores, *_cost(path), minutes)
    return runs


def _cost(path: Path) -> tuple[float, float]:
    """Tokens and seconds of an answer. Raises ConfigError for the metrics of an evaluation that did not note them."""
    metrics = json.loads(path.read_text())
    if not {"generated_tokens", "seconds_per_sample"} <= metrics.keys():
        raise ConfigError(
            f"{path}: no generated_tokens or seconds_per_sample; remove its folder, and it is asked again"
        )
    return metrics["generated_tokens"], metrics["seconds_per_sample"]


def entry(runs: Mapping[int, Answered]) -> Entry:
    """Of one grounder after one step: means over seeds with intervals over sentences, and what it took."""
    return {
        "seeds": list(runs),
        **summarize_seeds(runs),
        "generated_tokens": round(float(np.mean([run.generated_tokens for run in runs.values()])), 1),
        "seconds_per_sample": round(float(np.mean([run.seconds_per_sample for run in runs.values()])), 4),
        "minutes": round(float(np.mean([run.minutes for run in runs.values()])), 2),
    }


def ceilings(
    of_sft: Mapping[str, Mapping[int, Answered]], samples: Sequence[GroundingSample], out: Path
) -> dict[str, Entry]:
    """What the truth scores as each grounder writes it."""
    return {
        name: summarize(ceiling(samples, cell_folder(out, name, min(seeds)) / "sft", name), **BOOTSTRAP)
        for name, seeds in of_sft.items()
    }


def differences(runs: Mapping[str, Mapping[int, Answered]]) -> dict[str, Entry]:
    """`a - b` for every two grounders, over the seeds that both have."""
    return {
        f"{a} - {b}": shared_seed_differences(runs[a], runs[b])
        for a, b in combinations(runs, 2)
        if runs[a].keys() & runs[b].keys()
    }


def gains(runs: Runs) -> dict[str, Entry]:
    """What GRPO adds to each grounder."""
    before, after = (runs[step] for step in STEPS)
    return {
        name: shared_seed_differences(after[name], before[name])
        for name in after
        if after[name].keys() & before.get(name, {}).keys()
    }


if __name__ == "__main__":
    main()
