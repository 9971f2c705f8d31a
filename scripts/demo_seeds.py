"""The demo with several seeds, what trains the decoder in GRPO compared, and GRPO against SFT at equal entropy.

    python -m scripts.demo_seeds --seeds 0 1 2 --out outputs/demo_seeds --results docs/results/demo

Writes {results}.md and {results}.json, and the first seed's pictures beside them. A seed draws the backbone's weights, the order of samples, the annotators'
errors and the rollouts; videos are the same for all. Started again, finished stages are skipped.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from configs.base import load_config
from configs.rft import DecoderUpdate, RFTConfig
from configs.run import quiet_environment, read_metrics, setup_logging
from data.sources.jsonl import read_samples
from evaluation.metrics import paired_difference, score
from evaluation.predict import read_predictions
from scripts.demo import Stage, finished, run_once, stages
from scripts.demo_summary import ROWS, provenance, publish, run_record, with_interval, write_summary

logger = logging.getLogger("demo_seeds")

UPDATES = get_args(DecoderUpdate)
COLUMNS = ("m_tIoU", "m_vIoU", "gt_vIoU", "parse_rate")
NUM_RESAMPLES = 2000


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("outputs/demo_seeds"))
    parser.add_argument("--results", type=Path, required=True, help="path without its ending")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    results = {str(seed): run_seed(arguments.configs, arguments.out / f"seed{seed}", seed) for seed in arguments.seeds}
    write_results(results, arguments)


def run_seed(configs: Path, out: Path, seed: int) -> dict[str, Any]:
    """The demo, the other ways to train the decoder, and matched entropy. -> everything that is reported of a seed."""
    out.mkdir(parents=True, exist_ok=True)
    demo = stages(configs, out, data=out.parent, seed=seed)
    for stage in [*demo, *comparison_stages(configs, out, seed)]:
        run_once(stage, out / "stages.json")
    seconds = finished(out / "stages.json")
    summary = write_summary(out, data=out.parent, minutes=sum(seconds[stage.key] for stage in demo) / 60)
    return {
        "summary": summary,
        "updates": {update: compare_update(out, configs, update) for update in UPDATES},
        "matched_entropy": json.loads((out / "matched_entropy" / "matched_entropy.json").read_text()),
    }


def folder_suffix(configs: Path, update: str) -> str:
    """Of the folders of a GRPO run: the demo's own run stands for its own `decoder_update`."""
    ours = load_config(RFTConfig, configs / "rft.yaml").objective.decoder_update
    return "" if update == ours else f"_{update}"


def comparison_stages(configs: Path, out: Path, seed: int) -> list[Stage]:
    """GRPO from the same supervised checkpoint with every other `decoder_update`; both policies at equal entropy."""
    videos, chosen = f"data.source.root={out.parent}/videos", []
    for update in UPDATES:
        if suffix := folder_suffix(configs, update):
            train = (
                "--config",
                str(configs / "rft.yaml"),
                videos,
                f"run.out={out}/rft{suffix}",
                f"run.seed={seed}",
                f"checkpoint={out}/sft/checkpoint",
                f"objective.decoder_update={update}",
            )
            evaluate = (
                "--config",
                str(configs / "evaluate.yaml"),
                videos,
                f"out={out}/eval_grpo{suffix}",
                f"checkpoint={out}/rft{suffix}/checkpoint",
                "wrong_query=false",
            )
            chosen += [Stage(f"GRPO, decoder {update}", ("rft.train",), train, {}),
                       Stage(f"evaluate GRPO, decoder {update}", ("evaluation.run",), evaluate, {})]  # fmt: skip
    entropy = ("--config", str(configs / "matched_entropy.yaml"), videos, f"reference={out}/sft/checkpoint",
               f"refined={out}/rft/checkpoint", f"out={out}/matched_entropy")  # fmt: skip
    return [*chosen, Stage("GRPO and SFT at equal entropy", ("evaluation.matched_entropy",), entropy, {})]


def compare_update(out: Path, configs: Path, update: str) -> dict[str, Any]:
    """Greedy held-out answers after GRPO minus those before; what the rewards of the first and last steps were."""
    suffix = folder_suffix(configs, update)
    samples = [sample for sample in read_samples(out.parent / "videos" / "test.jsonl") if sample.task == "stvg"]
    after, before = (
        score(samples, read_predictions(out / folder / "predictions.jsonl"))
        for folder in (f"eval_grpo{suffix}", "eval_sft")
    )
    return {
        "minus_sft": paired_difference(after, before, num_resamples=NUM_RESAMPLES, seed=0),
        "signal": signal(read_metrics(out / f"rft{suffix}" / "metrics.jsonl")),
    }


def signal(rows: Sequence[Mapping[str, float]], *, window: int = 10) -> dict[str, list[float]]:
    """Mean of the first and of the last `window` logged steps: rewards, their std within groups, entropy."""
    steps = [row for row in rows if "reward/total" in row]
    names = [name for name in steps[0] if name.startswith("reward/") or name in ("policy/entropy", "mismatch/mean")]
    ends = (steps[:window], steps[-window:])
    return {name: [float(np.mean([row[name] for row in part])) for part in ends] for name in names}


def write_results(results: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """The JSON with everything, Markdown with what one looks at first, and the first seed's pictures."""
    seeds = list(results)
    flags = f"--configs {arguments.configs} --seeds {' '.join(seeds)} --results {arguments.results}"
    record = run_record(f"python -m scripts.demo_seeds {flags}") | {"seeds": results}
    publish(arguments.out / f"seed{seeds[0]}", arguments.results, record, markdown(record))


def markdown(record: Mapping[str, Any]) -> str:
    """One table for the demo's rows, one for the ways to train the decoder, one for equal entropy."""
    seeds = record["seeds"]
    first = next(iter(seeds.values()))["summary"]
    minutes = ", ".join(f"{result['summary']['minutes']:.1f}" for result in seeds.values())
    parts = [
        f"# The demo, seeds {', '.join(seeds)}",
        *provenance(record),
        f"{first['sft']['n']} sentences about "
        f"{first['num_videos']} held-out videos, greedy answers, 95 % bootstrap intervals; {minutes} minutes for the "
        "demo's stages.",
        _table("seed", {f"{seed}: {title}": [_value(result["summary"][key], c) for c in COLUMNS]
                        for seed, result in seeds.items() for key, title in ROWS.items()}),
        "## Paired differences",
        _table("seed", {row: cells for seed, result in seeds.items() for row, cells in _differences(seed, result)}),
        "## The signal within groups",
        "Mean over the first and the last ten steps, on sampled answers.",
        _signal_table(seeds),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _differences(seed: str, result: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    summary, entropy = result["summary"], result["matched_entropy"]
    rows = {"SFT, right - wrong sentence": summary["sft_right_minus_wrong"]}
    rows |= {f"GRPO ({update}) - SFT": entry["minus_sft"] for update, entry in result["updates"].items()}
    matched = f"GRPO - SFT, sampled at entropy {entropy['refined']['entropy']:.3f}"
    rows[f"{matched}, temperatures 1 and {entropy['reference']['temperature']:.2f}"] = entropy[
        "refined_minus_reference"
    ]
    return [(f"{seed}: {title}", [with_interval(row[c]["mean"], row[c]["ci95"], sign="+") for c in COLUMNS])
            for title, row in rows.items()]  # fmt: skip


def _signal_table(seeds: Mapping[str, Any]) -> str:
    columns = ("reward/temporal", "reward/temporal_group_std", "reward/viou", "reward/viou_group_std", "reward/format",
               "reward/format_group_std", "policy/entropy", "mismatch/mean")  # fmt: skip
    rows = {
        f"{seed}: {update}": [" → ".join(f"{value:.3g}" for value in entry["signal"][column]) for column in columns]
        for seed, result in seeds.items()
        for update, entry in result["updates"].items()
    }
    return _table("seed", rows, columns)


def _value(row: Mapping[str, Any], column: str) -> str:
    return with_interval(row[column], row[f"{column}_ci95"])


def _table(corner: str, rows: Mapping[str, Sequence[str]], columns: Sequence[str] = COLUMNS) -> str:
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows.items())])


if __name__ == "__main__":
    main()
