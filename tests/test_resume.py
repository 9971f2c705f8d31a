"""Runs that are killed at any moment and started again end as if nothing had happened."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from runs import RFT_STEPS, SFT_STEPS, finished_steps, kill, rows_of, run, start, wait_for, write_config
from safetensors.torch import load_file
from tiny import GROUNDED

from configs.base import ConfigError, load_config
from configs.checkpoints import CheckpointConfig, CheckpointStore, written_aside
from configs.rft import RFTConfig
from configs.run import Run, RunConfig, check_same_run, read_metrics
from configs.sft import SFTConfig


def assert_same_run(one: Path, other: Path) -> None:
    """The final tensors, bit for bit, every logged number, and which checkpoint is the best."""
    for name in ("grounder.safetensors", "mllm/model.safetensors"):
        ours, theirs = load_file(one / "checkpoint" / name), load_file(other / "checkpoint" / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert rows_of(one) == rows_of(other)
    stores = [CheckpointStore(folder, CheckpointConfig()) for folder in (one, other)]
    assert stores[0].best() == stores[1].best() is not None
    assert stores[0].steps() == stores[1].steps()


def kill_at_random_step(
    process: psutil.Popen,
    out: Path,
    log: Path,
    *,
    num_steps: int,
    rng: random.Random,
    how: Callable[[psutil.Popen], None],
) -> None:
    """Wait for a step drawn among those that are left, and kill the process or a part of it."""
    wait_for(lambda: _is_running(process, out), process)
    target = rng.randint(finished_steps(out), num_steps - 2)
    wait_for(lambda: finished_steps(out) >= target, process)
    assert process.poll() is None, log.read_text()[-3000:]
    how(process)


def _is_running(process: psutil.Popen, out: Path) -> bool:
    """Whether the metrics were opened by this process and not by the one before it."""
    path = out / "metrics.jsonl"
    return path.exists() and path.stat().st_mtime > process.create_time()


def killed_copy(run_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The config of a finished run for a folder of its own. -> config, folder."""
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    config["run"]["out"] = str(tmp_path / "run")
    return write_config(tmp_path, "config.yaml", config), tmp_path / "run"


def test_sft_killed_four_times_is_the_uninterrupted_run(sft_run: Path, tmp_path: Path) -> None:
    """Optimizer, schedule, order of samples, metrics, best checkpoint."""
    config, out = killed_copy(sft_run, tmp_path)
    rng = random.Random(1)
    for _ in range(4):
        process = start("sft.train", config, tmp_path / "log")
        kill_at_random_step(process, out, tmp_path / "log", num_steps=SFT_STEPS, rng=rng, how=kill)
    run("sft.train", "--config", str(config))
    assert_same_run(sft_run, out)


@pytest.mark.slow
@pytest.mark.parametrize("grounder", [name for name in GROUNDED if name != "bridge"])
def test_sft_and_grpo_of_the_other_grounders_go_on_after_a_kill(
    grounder: str, sft_run: Path, rft_run: Path, tmp_path: Path
) -> None:
    """Killed once each; GRPO refines what SFT wrote, through vLLM, and has answers of different worth to learn from."""
    trained = tmp_path / "sft_whole" / "checkpoint"
    for stage, folder, changes in (
        ("sft", sft_run, {"model": {"grounder": grounder}}),
        ("rft", rft_run, {"checkpoint": str(trained)}),
    ):
        ends = [tmp_path / f"{stage}_whole", tmp_path / f"{stage}_killed"]
        for out in ends:
            config = yaml.safe_load((folder / "config.yaml").read_text())
            for change in (changes, {"run": {"out": str(out)}}, OTHERWISE.get(grounder, {}).get(stage, {})):
                config = changed(config, change)
            path = write_config(tmp_path, f"{out.name}.yaml", config)
            if out is ends[1]:
                kill_after_a_checkpoint(f"{stage}.train", path, out, every=config["checkpoints"]["every_steps"])
            run(f"{stage}.train", "--config", str(path))
        assert_same_run(*ends)
    assert any(row.get("reward/total_group_std", 0) > 0 for row in rows_of(ends[0]))


OTHERWISE: dict[str, dict[str, dict[str, Any]]] = {
    "text": {
        # Single boxes, whose form is learned in so few steps; a tube's is not.
        "sft": {"data": {"tasks": {"rec": 1.0}}},
        "rft": {
            "data": {"tasks": {"rec": 1.0}},
            "rewards": {"tasks": {"rec": {"format": 0.1, "viou": 1.0}}},
            "objective": {"decoder_update": "frozen"},
        },
    },
}
"""What a grounder's runs have otherwise than those of `bridge`."""


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The config with the sections' keys replaced."""
    both = {key: config[key] | value if isinstance(value, dict) else value for key, value in changes.items()}
    return config | both


def kill_after_a_checkpoint(module: str, config: Path, out: Path, *, every: int) -> None:
    """Start the run, and kill it when its first checkpoint is behind it."""
    process = start(module, config, out.with_suffix(".log"))
    wait_for(lambda: finished_steps(out) > every, process)
    kill(process)


def test_grpo_killed_twice_is_the_uninterrupted_run(rft_run: Path, tmp_path: Path) -> None:
    """First the driver with its whole cluster, engine included; then the trainer rank alone, which Ray starts again."""
    config, out = killed_copy(rft_run, tmp_path)
    rng = random.Random(2)
    for how in (kill, kill_trainer_rank):
        process = start("rft.train", config, tmp_path / "log")
        try:
            kill_at_random_step(process, out, tmp_path / "log", num_steps=RFT_STEPS, rng=rng, how=how)
        except BaseException:
            kill(process)
            raise
    wait_for(lambda: False, process)
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]
    assert_same_run(rft_run, out)


def kill_trainer_rank(driver: psutil.Popen) -> None:
    """SIGKILL to the one process that Ray Train runs our rank in."""
    (rank,) = [child for child in driver.children(recursive=True) if "TrainWorker" in " ".join(child.cmdline())]
    rank.kill()
    psutil.wait_procs([rank], timeout=10)


def test_a_finished_run_is_not_run_again(sft_run: Path) -> None:
    before = (sft_run / "metrics.jsonl").stat().st_mtime_ns
    assert "this run is finished" in run("sft.train", "--config", str(sft_run / "config.yaml"))
    assert (sft_run / "metrics.jsonl").stat().st_mtime_ns == before


def test_another_config_in_the_same_folder_is_refused(sft_run: Path) -> None:
    """With the field, both values and what to do."""
    path = str(sft_run / "config.yaml")
    other = load_config(SFTConfig, path, ["optim.weight_decay=0.5"])
    with pytest.raises(ConfigError, match=r"optim.weight_decay: 0.01 -> 0.5.*another run.out"):
        check_same_run(other, other.run.out)
    check_same_run(load_config(SFTConfig, path, ["run.wandb=offline"]), other.run.out)


def test_a_key_that_is_newer_than_the_folder_has_its_default(sft_run: Path, tmp_path: Path) -> None:
    """The folder of an earlier version goes on; where the new key is set, it is refused."""
    out = shutil.copytree(sft_run, tmp_path / "run")
    tree = yaml.safe_load((out / "config.yaml").read_text())
    del tree["optim"]["vision_learning_rate"], tree["optim"]["weight_decay"]
    write_config(out, "config.yaml", tree)
    check_same_run(load_config(SFTConfig, sft_run / "config.yaml"), str(out))
    other = load_config(SFTConfig, sft_run / "config.yaml", ["optim.weight_decay=0.5"])
    with pytest.raises(ConfigError, match=r"optim.weight_decay: 0.01 -> 0.5"):
        check_same_run(other, str(out))


def test_a_grpo_run_of_before_a_limit_changed_goes_on(rft_config: RFTConfig, tmp_path: Path) -> None:
    """rollout.max_logprob_mismatch ends a run or does not, and changes no number of it."""
    run = rft_config.run.model_copy(update={"out": str(tmp_path)})
    rollout = rft_config.rollout.model_copy(update={"max_logprob_mismatch": 0.02})
    earlier = rft_config.model_copy(update={"run": run, "rollout": rollout})
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    write_config(tmp_path, "config.yaml", earlier.model_dump(mode="json"))
    check_same_run(rft_config.model_copy(update={"run": run}), str(tmp_path))
    other = earlier.model_copy(update={"max_steps": earlier.max_steps + 1})
    with pytest.raises(ConfigError, match="max_steps"):
        check_same_run(other, str(tmp_path))


def write(folder: Path, text: str = "x") -> Path:
    (folder / "weights").write_text(text)
    return folder


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, CheckpointConfig(keep_last=2))
    assert store.last() is None and store.best() is None
    for step, value in ((1, 0.1), (2, 0.9), (3, 0.5), (4, None), (5, 0.9)):
        store.publish(step, write(store.staging(step)), value=value)
    assert store.steps() == [2, 4, 5]
    assert store.best() == (2, 0.9)
    assert store.last() == (5, store.path(5))


def test_what_was_not_published_is_not_there(tmp_path: Path) -> None:
    """A killed process leaves a partial folder: not found, and gone after the next checkpoint."""
    store = CheckpointStore(tmp_path, CheckpointConfig())
    write(store.staging(1))
    assert store.last() is None
    assert list(store.staging(1).iterdir()) == []
    store.publish(2, write(store.staging(2)))
    assert [path.name for path in store.folder.iterdir()] == ["step-00000002"]


def test_a_complete_folder_is_never_overwritten(tmp_path: Path) -> None:
    with written_aside(tmp_path / "checkpoint") as folder:
        write(folder, "first")
    with pytest.raises(FileExistsError, match="already written"), written_aside(tmp_path / "checkpoint") as folder:
        write(folder, "second")
    assert (tmp_path / "checkpoint" / "weights").read_text() == "first"


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    """They are logged again. A line that was cut off is dropped too."""
    config = RunConfig(out=str(tmp_path), wandb="disabled")
    with Run(config, config, stage="sft") as first:
        for step in (1, 2, 3):
            first.log({"loss/total": float(step)}, step=step)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    with Run(config, config, stage="sft", resume_step=2) as second:
        second.log({"loss/total": 30.0}, step=3)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss/total"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 30.0)]
