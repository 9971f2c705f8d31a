"""A step's loss does not depend on how the step is cut: one process, accumulation, ranks with ZeRO-2 and ZeRO-3."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import rows_of, run, sft_config, write_config
from tiny import Tiny

from configs.model import BridgeConfig

STEPS = 5
BATCH = 8
CUTS = {
    "accumulated": ["per_device_train_batch_size=2", "gradient_accumulation_steps=4"],
    "zero2": ["per_device_train_batch_size=4", "deepspeed=configs/deepspeed/zero2.json"],
    "zero3": [
        "per_device_train_batch_size=2",
        "gradient_accumulation_steps=2",
        "deepspeed=configs/deepspeed/zero3.json",
    ],
}

RECORDED = {
    "text": [6.60088, 5.33517, 4.61726, 4.32824, 4.18499],
    "box_l1": [0.47305, 0.44447, 0.35465, 0.35264, 0.56163],
    "box_giou": [1.03976, 1.08267, 0.91826, 0.84338, 1.28418],
    "presence": [0.72301, 0.70679, 0.66415, 0.64650, 0.63496],
    "alignment": [0.69103, 0.68529, 0.71477, 0.68513, 0.67708],
    "contrast": [0.86256, 1.06077, 0.66822, 0.96840, 1.05954],
    "cells": [0.63135, 0.53466, 0.49464, 0.43486, 0.39503],
    "total": [13.17728, 11.75566, 10.16741, 9.64151, 11.37455],
}
"""Losses of the five steps in one process, from a run of this test."""


@pytest.fixture(scope="module")
def config(tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five steps of eight samples of four tasks, so that micro-batches hold unequal numbers of tokens and boxes."""
    folder = tmp_path_factory.mktemp("global_batch")
    tree = sft_config(tiny.data.model_dump(mode="json"), backbone, bridge_config, folder / "whole")
    tree |= {"checkpoints": {}, "validation": {}, "max_steps": STEPS, "per_device_train_batch_size": BATCH}
    tree["optim"] |= {"learning_rate": 5e-4}
    return write_config(folder, "sft.yaml", tree)


@pytest.fixture(scope="module")
def whole(config: Path) -> list[dict[str, Any]]:
    """Metrics of one process that takes a step's samples at once."""
    run("sft.train", "--config", str(config))
    return rows_of(Path(yaml.safe_load(config.read_text())["run"]["out"]))


def test_losses_are_the_recorded_ones(whole: list[dict[str, Any]]) -> None:
    """What training computes has changed where this fails: on purpose, then the demo's numbers are to be made again."""
    assert {name: [row[f"loss/{name}"] for row in whole] for name in RECORDED} == {
        name: pytest.approx(values, abs=1e-3) for name, values in RECORDED.items()
    }


@pytest.mark.parametrize("cut", CUTS)
def test_a_step_is_the_same_however_it_is_cut(
    config: Path, whole: list[dict[str, Any]], cut: str, tmp_path: Path
) -> None:
    """Every loss of five steps within 1e-4, and the gradient's norm: what is logged is of the whole step too."""
    arguments = ["--config", str(config), f"run.out={tmp_path}", *CUTS[cut]]
    if "deepspeed" in " ".join(arguments):
        launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m", "sft.train"]
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        run("torch.distributed.run", *launch, *arguments, env=environment)
    else:
        run("sft.train", *arguments)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for ours, theirs in zip(rows, whole, strict=True):
        losses = {name: value for name, value in theirs.items() if name.startswith("loss/")}
        assert len(losses) == 8
        assert {name: ours[name] for name in losses} == pytest.approx(losses, abs=1e-4)
        assert ours["optim/grad_norm"] == pytest.approx(theirs["optim/grad_norm"], rel=1e-3)
