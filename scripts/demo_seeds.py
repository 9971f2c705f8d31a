"""The demo with several seeds, what trains the decoder in GRPO compared, and GRPO against SFT at equal entropy.

    python -m scripts.demo_seeds --seeds 0 1 2 --out outputs/demo_seeds --results docs/results/demo

Writes {results}.md and {results}.json, and the first seed's pictures beside them. A seed draws the backbone's weights,
the order of samples, the annotators' errors and the rollouts; videos are the same for all. Started again, finished
stages are skipped.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from configs.base import load_config
from configs.rft import DecoderUpdate, RFTConfig
from configs.run import quiet_environment, read_metrics, setup_logging
from scripts.demo import Stage, grpo_stages, make_out_folder, run_once, stages
from scripts.demo_summary import (
    COLUMNS,
    DIFFERENCES,
    ROWS,
    difference_cells,
    markdown_table,
    minus_sft,
    provenance,
    publish,
    run_record,
    value_cells,
    write_summary,
)

SIGNALS = (
    "reward/temporal", "reward/temporal_group_std", "reward/viou", "reward/viou_group_std", "reward/format",
    "reward/format_group_std", "policy/entropy", "mismatch/mean",
)  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"), help="folder of the configs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one demo each")
    parser.add_argument("--compare", type=int, nargs="*", help="seeds to compare ways of GRPO for; all by default")
    parser.add_argument("--out", type=Path, default=Path("outputs/demo_seeds"), help="folder of the runs")
    parser.add_argument("--data", type=Path, help="folder of the videos; that of the first seed's demo by default")
    parser.add_argument("--results", type=Path, required=True, help="path without its ending")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    folders = [arguments.out / f"seed{seed}" for seed in arguments.seeds]
    data = arguments.data or folders[0]
    compared = arguments.seeds if arguments.compare is None else arguments.compare
    first = stages(arguments.configs, folders[0], data=data, seed=arguments.seeds[0])
    entropy = [entropy_stage(arguments.configs, folders[0], data)] if compared else []
    make_out_folder(folders[0], [*first, *entropy])
    results = {}
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        results[str(seed)] = run_demo(arguments.configs, folder, data, seed)
        if seed in compared:
            ours = results[str(seed)]["update"]
            results[str(seed)] |= run_comparisons(arguments.configs, folder, data, seed, ours)
    record = run_record("scripts.demo_seeds", folders) | {"seeds": results}
    publish(folders[0], arguments.results, record, markdown(record))


def run_demo(configs: Path, out: Path, data: Path, seed: int) -> dict[str, Any]:
    """The stages of the demo. -> its summary."""
    out.mkdir(parents=True, exist_ok=True)
    seconds = [run_once(stage, out / "stages.json") for stage in stages(configs, out, data=data, seed=seed)]
    update = load_config(RFTConfig, configs / "rft.yaml").objective.decoder_update
    return {"update": update, "summary": write_summary(out, data=data, minutes=sum(seconds) / 60)}


def run_comparisons(configs: Path, out: Path, data: Path, seed: int, ours: str) -> dict[str, Any]:
    """GRPO from the same supervised checkpoint with every `decoder_update`; GRPO and SFT at equal entropy.

    ours: the update of the demo's own run, which is not run again.
    """
    suffixes = {update: "" if update == ours else f"_{update}" for update in get_args(DecoderUpdate)}
    for update, suffix in suffixes.items():
        for stage in grpo_stages(configs, out, data=data, seed=seed, update=update) if suffix else []:
            run_once(stage, out / "stages.json")
    run_once(entropy_stage(configs, out, data), out / "stages.json")
    return {
        "updates": {update: compare_update(out, data, suffix) for update, suffix in suffixes.items()},
        "matched_entropy": json.loads((out / "entropy" / "matched_entropy.json").read_text()),
    }


def entropy_stage(configs: Path, out: Path, data: Path) -> Stage:
    """The refined model sampled at the entropy of the supervised one."""
    words = ("--config", str(configs / "matched_entropy.yaml"), f"data.source.root={data}/videos",
             f"reference={out}/sft/checkpoint", f"refined={out}/rft/checkpoint", f"out={out}/entropy")  # fmt: skip
    return Stage("GRPO and SFT at equal entropy", ("evaluation.matched_entropy",), words)


def compare_update(out: Path, data: Path, suffix: str) -> dict[str, Any]:
    """Greedy held-out answers after GRPO minus those before; what the rewards of the first and last steps were."""
    return {
        "minus_sft": minus_sft(out, data, f"grpo{suffix}"),
        "right_minus_wrong": json.loads((out / f"eval_grpo{suffix}" / "metrics.json").read_text())["right_minus_wrong"],
        "signal": signal(read_metrics(out / f"rft{suffix}" / "metrics.jsonl")),
    }


def signal(rows: Sequence[Mapping[str, float]], *, window: int = 10) -> dict[str, list[float]]:
    """Mean of the first and of the last `window` logged steps: rewards, their std within groups, entropy."""
    steps = [row for row in rows if "reward/total" in row]
    names = [name for name in steps[0] if name.startswith("reward/") or name in ("policy/entropy", "mismatch/mean")]
    ends = (steps[:window], steps[-window:])
    return {name: [float(np.mean([row[name] for row in part])) for part in ends] for name in names}


def markdown(record: Mapping[str, Any]) -> str:
    """A table of the demo's rows, one of the differences with all seeds together, one of the signal within groups."""
    seeds = record["seeds"]
    first = next(iter(seeds.values()))["summary"]
    values = {f"{seed}: {title}": value_cells(result["summary"][key])
              for seed, result in seeds.items() for key, title in ROWS.items()}  # fmt: skip
    parts = [
        f"# The demo, seeds {', '.join(seeds)}",
        *provenance(record),
        f"{first['sft']['n']} sentences about {first['num_videos']} held-out videos, the same for all seeds; greedy "
        "answers; 95 % bootstrap intervals over sentences.",
        markdown_table("seed", values),
        "## Paired differences",
        "Of each seed with its interval; of the seeds together the mean, lowest and highest.",
        markdown_table("seed", difference_rows(seeds)),
        "## The signal within groups",
        "Mean over the first and the last ten steps, on sampled answers.",
        markdown_table("seed", signal_rows(seeds), SIGNALS),
    ]
    return "\n\n".join(parts) + "\n"


def difference_rows(seeds: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every difference of every seed, and below them their means over seeds with the lowest and the highest."""
    differences = {seed: _differences(result) for seed, result in seeds.items()}
    rows = {f"{seed}: {title}": difference_cells(row) for seed, of in differences.items() for title, row in of.items()}
    for title in dict.fromkeys(title for of in differences.values() for title in of):
        seen = [of[title] for of in differences.values() if title in of]
        columns = [[row[column]["mean"] for row in seen] for column in COLUMNS]
        if len(seen) > 1:
            cells = [f"{np.mean(c):+.3f} ({min(c):+.3f} to {max(c):+.3f})" for c in columns]
            rows[f"{len(seen)} seeds: {title}"] = cells
    return rows


def _differences(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    summary, ours = result["summary"], result["update"]
    rows = {
        DIFFERENCES["sft_right_minus_wrong"]: summary["sft_right_minus_wrong"],
        f"GRPO ({ours}) - SFT": summary["grpo_minus_sft"],
        f"GRPO ({ours}): right - wrong sentence": summary["grpo_right_minus_wrong"],
    }
    for update, entry in result.get("updates", {}).items():
        rows[f"GRPO ({update}) - SFT"] = entry["minus_sft"]
        rows[f"GRPO ({update}): right - wrong sentence"] = entry["right_minus_wrong"]
    if matched := result.get("matched_entropy"):
        title = f"GRPO sampled at temperature {matched['refined']['temperature']:g} - SFT sampled at the same entropy"
        rows[title] = matched["refined_minus_reference"]
    return rows


def signal_rows(seeds: Mapping[str, Any]) -> dict[str, list[str]]:
    """First and last steps of every GRPO run."""
    return {
        f"{seed}: {update}": [" → ".join(f"{value:.3g}" for value in entry["signal"][name]) for name in SIGNALS]
        for seed, result in seeds.items()
        for update, entry in result.get("updates", {}).items()
    }


if __name__ == "__main__":
    main()
