"""What each part of the `bridge` grounder is worth, on rendered videos: one cell for each part that is changed.

    python -m scripts.ablate --configs configs/ablation --out outputs/ablation --results docs/results/bridge_ablation

An MLLM is trained once, on frames and on videos. Every cell starts from it with a fresh grounder, trains both for the same
number of steps, and is asked about held-out videos. The first seed screens all cells; the others are for the default
and the largest effects. A seed draws the grounder's weights, the order of samples, frames and perturbations.
Started again after a kill, finished stages are skipped and the interrupted one goes on from its last checkpoint.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.command_line import explained
from configs.run import quiet_environment, setup_logging
from scripts.ablation_cells import DEFAULT, Cell, cell_folder, is_trained, load_cells, overrides, trained_folder
from scripts.ablation_report import publish, read_runs, summarize_cells
from scripts.demo import ONE_THREAD, Stage, run_once
from scripts.reports import study_parser

logger = logging.getLogger("ablate")

RECORD = "stages.json"
"""Of the stages that have finished."""


def main() -> None:
    """Entry point."""
    parser = study_parser(__doc__, configs="configs/ablation", out="outputs/ablation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="the first one screens all cells")
    parser.add_argument("--largest", type=int, default=4, help="effects that the other seeds look at too")
    arguments = parser.parse_args()
    setup_logging()
    quiet_environment()
    with explained():
        cells = load_cells(arguments.configs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for stage in base_stages(arguments.configs, arguments.out):
        run_once(stage, arguments.out / RECORD)
    screening, *more = arguments.seeds
    run_cells(arguments.configs, arguments.out, cells, screening)
    screened = {name: {screening: runs[screening]} for name, runs in read_runs(cells, arguments.out).items()}
    kept = repeated(cells, summarize_cells(cells, screened), arguments.largest)
    logger.info("with seeds %s too: %s", more, ", ".join(kept))
    for seed in more:
        run_cells(arguments.configs, arguments.out, kept, seed)
    publish(cells, arguments.out, arguments.results, module="scripts.ablate")


def base_stages(configs: Path, out: Path) -> list[Stage]:
    """Render, make a backbone, SFT on frames, SFT on videos: the MLLM that all cells start from."""
    frames, videos = f"data.source.root={out}/frames", f"data.source.root={out}/videos"
    on_frames, on_videos = (("--config", str(configs / f"base_{name}.yaml")) for name in ("frames", "videos"))
    backbone = f"{out}/backbone"
    return [
        Stage("render frames", ("data.prepare",), (*on_frames, frames)),
        Stage("render videos", ("data.prepare",), (*on_videos, videos)),
        Stage("tiny backbone", ("model.tiny_backbone",), (*on_videos, "--out", backbone, videos)),
        Stage("base: SFT on single frames", ("sft.train",),
              (*on_frames, frames, f"run.out={out}/base_frames", f"model.backbone={backbone}"), ONE_THREAD),
        Stage("base: SFT on videos", ("sft.train",),
              (*on_videos, videos, f"run.out={out}/base_videos", f"checkpoint={out}/base_frames/checkpoint"), ONE_THREAD),
    ]  # fmt: skip


def run_cells(configs: Path, out: Path, cells: Mapping[str, Cell], seed: int) -> None:
    """Train and evaluate the cells, the default first: others are asked of its checkpoint."""
    for name in sorted(cells, key=lambda name: name != DEFAULT):
        for stage in cell_stages(configs, out, name, cells[name], seed):
            run_once(stage, out / RECORD)


def cell_stages(configs: Path, out: Path, name: str, cell: Cell, seed: int) -> list[Stage]:
    """Train, where the cell changes something of it, and evaluate."""
    folder, videos = cell_folder(out, name, seed), f"data.source.root={out}/videos"
    train = Stage(f"train {name}, seed {seed}", ("sft.train",), ("--config", str(configs / "cell.yaml"), videos,
                  f"run.out={folder}/train", f"run.seed={seed}", f"model.backbone={out}/base_videos/checkpoint/mllm",
                  *overrides(cell.train)), ONE_THREAD)  # fmt: skip
    checkpoint = f"checkpoint={trained_folder(out, name, cell, seed)}/train/checkpoint"
    evaluate = Stage(f"evaluate {name}, seed {seed}", ("evaluation.run",), ("--config", str(configs / "evaluate.yaml"),
                     videos, checkpoint, f"out={folder}/eval", *overrides(cell.evaluate)), ONE_THREAD)  # fmt: skip
    return [train, evaluate] if is_trained(name, cell) else [evaluate]


def repeated(cells: Mapping[str, Cell], entries: Mapping[str, Any], largest: int) -> dict[str, Cell]:
    """The cells that the other seeds look at: the default, the largest effects on m_vIoU, and what costs no training.

    entries: as `summary` has them, of one seed.
    """
    trained = [name for name, cell in cells.items() if name != DEFAULT and is_trained(name, cell)]
    by_effect = sorted(trained, key=lambda name: -abs(entries[name]["minus_default"]["m_vIoU"]["mean"]))
    kept = {DEFAULT, *by_effect[:largest], *(name for name, cell in cells.items() if not is_trained(name, cell))}
    return {name: cell for name, cell in cells.items() if name in kept}


if __name__ == "__main__":
    main()
