"""`python -m evaluation.predict`, killed with SIGKILL at any moment and started again, to the uninterrupted files."""

import random
import time
from pathlib import Path

import pytest
from runs import kill, run, start, wait_for, write_config
from tiny import Tiny

from configs.evaluation import EvaluationConfig
from evaluation.predict import PREDICTIONS, WRONG_QUERY_PREDICTIONS, predict

FILES = (PREDICTIONS, WRONG_QUERY_PREDICTIONS)


def config_of(tiny: Tiny, out: Path, **settings: int) -> EvaluationConfig:
    """All four tasks of the test videos, two samples a batch, with the control."""
    return EvaluationConfig(
        checkpoint=str(tiny.folder), out=str(out), data=tiny.data, dtype="float32", batch_size=2,
        max_completion_length=8, **settings,
    )  # fmt: skip


def lines_written(out: Path) -> int:
    """Of both files, finished or not."""
    paths = [out / f"{prefix}{name}" for name in FILES for prefix in ("", ".partial-")]
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


def kill_at_random(config: Path, out: Path, log: Path, *, after_lines: int, rng: random.Random) -> None:
    """SIGKILL as soon as there are so many lines, and up to a batch's time later; at 0, while the process starts."""
    process = start("evaluation.predict", config, log)
    try:
        wait_for(lambda: lines_written(out) >= after_lines, process)
        time.sleep(rng.uniform(0.0, 1.0 if after_lines == 0 else 0.05))
        assert process.poll() is None, log.read_text()[-3000:]
    finally:
        if process.poll() is None:
            kill(process)


@pytest.mark.parametrize(("num_early", "num_late"), [(2, 1), pytest.param(3, 17, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tiny: Tiny, tmp_path: Path, num_early: int, num_late: int) -> None:
    """Early kills come while the process starts, late ones after ever more batches, in either file."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    predicted = predict(config_of(tiny, whole))
    config = write_config(tmp_path, "evaluate.yaml", config_of(tiny, killed).model_dump(mode="json"))
    rng = random.Random(num_late)
    # The last batches are left alone: the process must not end by itself before it is killed.
    total = 2 * len(predicted.samples)
    moments = sorted(rng.sample(range(1, total - 8), num_late))
    for after_lines in (*[0] * num_early, *moments):
        kill_at_random(config, killed, tmp_path / "log", after_lines=after_lines, rng=rng)
    assert 0 < lines_written(killed) < total
    run("evaluation.predict", "--config", str(config))
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert not (killed / f".partial-{name}").exists()
