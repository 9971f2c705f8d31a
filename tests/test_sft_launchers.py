"""torchrun, DeepSpeed's launcher and Ray Train: two ranks on gloo, the same losses; and which folders may go on."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import finished_steps, kill, rows_of, run, sft_config, start, wait_for, write_config
from tiny import Tiny

from configs.base import ConfigError, load_config
from configs.model import BridgeConfig
from configs.sft import RaySFTConfig, SFTConfig
from sft.train import check_deepspeed, has_work, without_local_rank

STEPS, CHECKPOINT_STEPS = 8, 2
GLOO = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> str:
    launch = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m", "sft.train"]
    return run("torch.distributed.run", *launch, *arguments, env=GLOO)


def deepspeed(*arguments: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    launch = ["--num_gpus", "2", "--master_addr", "127.0.0.1", "--master_port", port, "--module", "sft.train"]
    return run("deepspeed.launcher.runner", *launch, *arguments, env=GLOO)


def ray_train(*arguments: str) -> str:
    return run("sft.ray_train", *arguments, "ray.num_workers=2", env=GLOO)


@pytest.fixture(scope="module")
def config(tiny: Tiny, backbone: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps of eight samples of four tasks, four on each rank."""
    folder = tmp_path_factory.mktemp("launchers")
    tree = sft_config(tiny.data.model_dump(mode="json"), backbone, bridge_config, folder / "torchrun")
    tree |= {"checkpoints": {"every_steps": CHECKPOINT_STEPS}, "validation": {}, "max_steps": STEPS}
    tree["per_device_train_batch_size"] = 4
    return write_config(folder, "sft.yaml", tree)


@pytest.fixture(scope="module")
def of_torchrun(config: Path) -> list[dict[str, Any]]:
    """Metrics of two ranks that torchrun starts."""
    torchrun("--config", str(config))
    return rows_of(Path(yaml.safe_load(config.read_text())["run"]["out"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launch", "overrides", "tolerance"),
    [
        (ray_train, [], 0),
        (deepspeed, [], 0),
        (deepspeed, ["deepspeed=configs/deepspeed/zero2.json"], 1e-4),
        (torchrun, ["micro_batches=by_length"], 1e-4),
    ],
    ids=["ray", "deepspeed", "deepspeed zero2", "by length"],
)
def test_the_losses_do_not_depend_on_the_launcher(
    launch: Callable[..., str],
    overrides: list[str],
    tolerance: float,
    config: Path,
    of_torchrun: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Bit by bit where nothing else differs; within 1e-4 where sums are taken in another order."""
    launch("--config", str(config), f"run.out={tmp_path}", *overrides)
    assert len(of_torchrun) == STEPS
    for ours, theirs in zip(rows_of(tmp_path), of_torchrun, strict=True):
        numbers = {name: value for name, value in theirs.items() if name.startswith(("loss/", "optim/"))}
        assert "loss/total" in numbers and "optim/grad_norm" in numbers
        assert {name: ours[name] for name in numbers} == pytest.approx(numbers, abs=tolerance, rel=tolerance)
    assert (tmp_path / "checkpoint" / "grounder.safetensors").is_file()
    shutil.rmtree(tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="number of ranks: 2 -> 1; a run folder belongs to one number of ranks"):
        has_work(load_config(SFTConfig, tmp_path / "config.yaml"), num_ranks=1)


@pytest.mark.slow
def test_ray_starts_dead_ranks_again(config: Path, of_torchrun: list[dict[str, Any]], tmp_path: Path) -> None:
    """One of the two is killed; both go on from the last checkpoint, and the run is the uninterrupted one, bit by bit."""
    tree = yaml.safe_load(config.read_text()) | {"ray": {"num_workers": 2, "max_failures": 1}}
    tree["run"]["out"] = str(tmp_path / "run")
    log = tmp_path / "log"
    driver = start("sft.ray_train", write_config(tmp_path, "ray.yaml", tree), log)
    try:
        wait_for(lambda: finished_steps(tmp_path / "run") > CHECKPOINT_STEPS, driver)
        ranks = [child for child in driver.children(recursive=True) if "TrainWorker" in " ".join(child.cmdline())]
        assert len(ranks) == 2, log.read_text()[-3000:]
        ranks[1].kill()
        wait_for(lambda: False, driver)
    finally:
        if driver.poll() is None:
            kill(driver)
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert rows_of(tmp_path / "run") == of_torchrun


@pytest.mark.slow
def test_micro_batches_by_length_go_on_after_a_kill(config: Path, tmp_path: Path) -> None:
    """Killed and started again, against uninterrupted: the same metrics, bit by bit."""
    ends = []
    for name in ("whole", "killed"):
        tree = yaml.safe_load(config.read_text()) | {"micro_batches": "by_length", "gradient_accumulation_steps": 2}
        tree["run"]["out"] = str(tmp_path / name)
        path = write_config(tmp_path, f"{name}.yaml", tree)
        if name == "killed":
            process = start("sft.train", path, tmp_path / "log")
            wait_for(lambda: finished_steps(tmp_path / "killed") > CHECKPOINT_STEPS, process)
            kill(process)
            assert process.returncode != 0 and finished_steps(tmp_path / "killed") < STEPS
        output = run("sft.train", "--config", str(path))
        assert "micro-batches by length" in output
        ends.append(rows_of(tmp_path / name))
    assert len(ends[0]) == STEPS and ends[0] == ends[1]


@pytest.fixture()
def unfinished(sft_run: Path, tmp_path: Path) -> Path:
    """The folder of a run on one rank that was killed before its end."""
    folder = shutil.copytree(sft_run, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint")
    return folder


def test_a_run_does_not_go_on_with_other_ranks(unfinished: Path) -> None:
    config = load_config(SFTConfig, unfinished / "config.yaml", [f"run.out={unfinished}"])
    assert has_work(config, num_ranks=1)
    with pytest.raises(
        ConfigError, match=r"step-000000..: number of ranks: 1 -> 2; .*start 1, or choose another run.out"
    ):
        has_work(config, num_ranks=2)


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("gradient_accumulation_steps=2", "gradient_accumulation_steps: 1 -> 2"),
        ("per_device_train_batch_size=4", "per_device_train_batch_size: 8 -> 4"),
        ("micro_batches=by_length", "micro_batches: 'as_drawn' -> 'by_length'"),
    ],
)
def test_a_run_does_not_go_on_in_other_micro_batches(override: str, change: str, unfinished: Path) -> None:
    config = load_config(SFTConfig, unfinished / "config.yaml", [f"run.out={unfinished}", override])
    with pytest.raises(ConfigError, match=change):
        has_work(config, num_ranks=1)


def test_where_ranks_run_is_no_part_of_the_run(unfinished: Path) -> None:
    """A folder goes on under any launcher."""
    path = unfinished / "config.yaml"
    config = load_config(RaySFTConfig, path, ["ray.num_workers=2", "ray.max_failures=1"])
    assert (config.ray.num_workers, config.ray.max_failures) == (2, 1)
    assert type(config.of_run()) is SFTConfig and config.of_run() == load_config(SFTConfig, path)


def test_micro_batches_by_length_and_zero3_are_refused(unfinished: Path) -> None:
    """Ranks would fetch weights for different numbers of rows; stage 2 is fine."""
    overrides = ["micro_batches=by_length", "deepspeed=configs/deepspeed/zero3.json"]
    config = load_config(SFTConfig, unfinished / "config.yaml", overrides)
    with pytest.raises(ConfigError, match=r"by_length .* ZeRO stage 3 \(configs/deepspeed/zero3.json\) does not work"):
        check_deepspeed(config)
    check_deepspeed(config.model_copy(update={"deepspeed": "configs/deepspeed/zero2.json"}))
    check_deepspeed(config.model_copy(update={"micro_batches": "as_drawn"}))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--local_rank=1", "--config", "a.yaml", "max_steps=3"],
        ["--config", "a.yaml", "--local_rank", "0", "max_steps=3"],
        ["--config", "a.yaml", "max_steps=3"],
    ],
)
def test_what_the_deepspeed_launcher_adds_is_taken_away(arguments: list[str]) -> None:
    assert without_local_rank(arguments) == ["--config", "a.yaml", "max_steps=3"]
