"""Padding, and the fullest rank, of micro-batches as they are drawn and by length (data/batching.py).

    python -m benchmarks.padding --json
    python -m benchmarks.padding --steps 200 --rows 16 --ranks 2 --accumulation 1

Rendered videos in the prompts of the tests' tiny Qwen3-VL: `one length`, videos and single frames of one source, and `mixture`,
four tasks on videos of 2, 8 and 24 s. Prints, for each

    tokens            shortest and longest prompt
    padding           share of the computed tokens, as drawn and by length, from prompts' lengths as they are planned
    padding_measured  the same of real batches, answers and query slots included, over the first steps
    fullest_rank      tokens that it computes over an even share of the step's rows, as drawn and by length
    dearest           tokens of the dearest micro-batch of the run, as drawn and by length
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from configs.data import DataConfig
from configs.run import RunConfig
from configs.sft import SFTConfig
from configs.sources import MixturePart, MixtureSource, SyntheticSource
from configs.video import VideoConfig
from data.batching import MicroBatches, by_length, costs, drawn, fullest_rank, padding_share, prompt_lengths
from data.dataset import PromptEncoder, SupervisedCollator
from data.sources import load_samples, synthetic
from model.backbone import load_processor
from model.tiny_backbone import make_tiny_backbone
from sft.train import training_rows

NUM_QUERIES, MEASURED_STEPS = 8, 4


def source(root: str, duration_sec: float, *, num_videos: int = 24) -> SyntheticSource:
    """Rendered videos of one length."""
    config = SyntheticSource(
        root=f"{root}/{duration_sec:g}s", num_videos={"train": num_videos}, fps=4.0, duration_sec=duration_sec,
        min_interval_sec=duration_sec / 4, max_interval_sec=duration_sec / 2,
    )  # fmt: skip
    synthetic.render(config, num_processes=1)
    return config


def cases(root: str) -> dict[str, DataConfig]:
    """One source as in the demo, and a mixture of tasks and lengths."""
    video = VideoConfig(sample_fps=4.0)
    parts = {f"{sec}s": MixturePart(source=source(root, sec), weight=1.0) for sec in (2, 8, 24)}
    return {
        "one length": DataConfig(source=source(root, 8), video=video, tasks={"stvg": 0.7, "rec": 0.3}),
        "mixture": DataConfig(
            source=MixtureSource(parts=parts), video=video, tasks=dict.fromkeys(["stvg", "temporal", "rec", "qa"], 1.0)
        ),
    }


def measure(data: DataConfig, *, root: str, steps: int, rows: int, ranks: int, accumulation: int) -> dict[str, Any]:
    """The numbers of one case: as drawn, by length."""
    folder = Path(root) / "backbone"
    samples = load_samples(data, "train")
    make_tiny_backbone(samples, folder)
    encoder = PromptEncoder(load_processor(str(folder)), data)
    config = SFTConfig(
        run=RunConfig(out="unused"), data=data, max_steps=steps, per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    positions = training_rows(config, samples, encoder, world_size=ranks)
    lengths = prompt_lengths(positions.samples, positions.order, encoder.budget)
    cut = {"ranks": ranks, "accumulation": accumulation}
    both = drawn(len(lengths), rows), by_length(lengths, rows=rows, **cut)
    first = MEASURED_STEPS * ranks * accumulation
    return {
        "tokens": [int(lengths.min()), int(lengths.max())],
        "padding": [round(padding_share(batches, lengths), 4) for batches in both],
        "padding_measured": [round(measured_padding(positions, batches[:first]), 4) for batches in both],
        "fullest_rank": [round(fullest_rank(batches, lengths, **cut), 4) for batches in both],
        "dearest": [int(costs(batches, lengths).max()) for batches in both],
    }


def measured_padding(positions: Any, batches: MicroBatches) -> float:
    """Share of masked tokens in collated batches."""
    collate = SupervisedCollator(num_queries=NUM_QUERIES, pad_id=0, temporal_patch_size=2)
    masks = [
        collate([{"rows": [positions.row(i) for i in batch]}])["attention_mask"].numpy().ravel() for batch in batches
    ]
    return 1 - float(np.concatenate(masks).mean())


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, meaning in (
        ("steps", 100, "of the run"),
        ("rows", 4, "of a micro-batch"),
        ("ranks", 2, "that share a step"),
        ("accumulation", 4, "micro-batches of a rank's step"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parsed = vars(parser.parse_args(arguments))
    as_json = parsed.pop("json")
    with tempfile.TemporaryDirectory() as root:
        results = {name: measure(data, root=root, **parsed) for name, data in cases(root).items()}
    if as_json:
        sys.stdout.write(json.dumps(parsed | results) + "\n")
        return
    for name, result in results.items():
        sys.stdout.write(f"{name}\n" + "".join(f"  {key:18}{value}\n" for key, value in result.items()))


if __name__ == "__main__":
    main()
