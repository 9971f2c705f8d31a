"""Strict configs: what is wrong with a file or an override is said with its dotted key, and loading stays light."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs.base import Config, ConfigError, load_config
from configs.data import DataConfig
from configs.evaluation import EvaluationConfig, MatchedEntropyConfig
from configs.rft import RFTConfig
from configs.sft import SFTConfig
from configs.sources import JsonlSource, SyntheticSource
from scripts.ablation_cells import CellTable
from scripts.grounder_cells import GrounderTable
from scripts.grpo_arms import ArmTable

ROOT = Path(__file__).resolve().parent.parent
SFT_TREE = {"run": {"out": "runs/x"}, "data": {"source": {"type": "synthetic", "root": "videos"}}}
RFT_TREE = {**SFT_TREE, "checkpoint": "runs/sft/checkpoint"}


@pytest.fixture
def sft_yaml(tmp_path: Path) -> Path:
    """A YAML with nothing but what has no default."""
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump(SFT_TREE))
    return path


@pytest.fixture
def rft_yaml(tmp_path: Path) -> Path:
    """Same, for RFT."""
    path = tmp_path / "rft.yaml"
    path.write_text(yaml.safe_dump(RFT_TREE))
    return path


def error_of(schema: type[Config], path: Path, *overrides: str) -> str:
    """The message of the ConfigError that loading raises."""
    with pytest.raises(ConfigError) as caught:
        load_config(schema, path, overrides)
    return str(caught.value)


def test_defaults_and_overrides(sft_yaml: Path) -> None:
    """An override replaces one leaf and leaves its neighbours at their defaults."""
    plain = load_config(SFTConfig, sft_yaml)
    changed = load_config(
        SFTConfig,
        sft_yaml,
        ["optim.learning_rate=1e-3", "max_steps=7", "data.source.num_objects=[1, 3]", "model.freeze_vision=false"],
    )
    assert changed.optim.learning_rate == 0.001
    assert changed.optim.grounder_learning_rate == plain.optim.grounder_learning_rate
    assert changed.max_steps == 7
    assert isinstance(changed.data.source, SyntheticSource)
    assert changed.data.source.num_objects == (1, 3)
    assert changed.model.freeze_vision is False


def test_later_override_wins_over_earlier_and_over_file(sft_yaml: Path) -> None:
    config = load_config(SFTConfig, sft_yaml, ["run.out=a", "run.out=b"])
    assert config.run.out == "b"


def test_override_switches_the_union(tmp_path: Path) -> None:
    """The tag picks the member of `data.source`."""
    path = tmp_path / "sft.yaml"
    path.write_text(yaml.safe_dump({"run": {"out": "x"}, "data": {"source": {"root": "here"}}}))
    source = load_config(SFTConfig, path, ["data.source.type=jsonl"]).data.source
    assert source == JsonlSource(root="here")


def test_a_section_of_a_file(sft_yaml: Path) -> None:
    """`section` reads one group of keys with the schema it has there; overrides keep their full dotted keys."""
    data = load_config(DataConfig, sft_yaml, ["data.source.seed=3", "data.video.sample_fps=1"], section="data")
    assert data == load_config(SFTConfig, sft_yaml, ["data.source.seed=3", "data.video.sample_fps=1"]).data
    with pytest.raises(ConfigError, match="section data:\n  unknown key 'vdeo'; did you mean 'video'"):
        load_config(DataConfig, sft_yaml, ["data.vdeo={}"], section="data")


def test_configs_are_frozen(sft_yaml: Path) -> None:
    config = load_config(SFTConfig, sft_yaml)
    with pytest.raises(ValueError, match="frozen"):
        config.optim.learning_rate = 1.0  # type: ignore[misc]


def test_resolved_config_loads_again(sft_yaml: Path, tmp_path: Path) -> None:
    """Round trip: what a run folder holds (`model_dump` as YAML) gives the same config."""
    config = load_config(SFTConfig, sft_yaml, ["optim.learning_rate=3e-4", "data.tasks={stvg: 0.5, qa: 0.5}"])
    again = tmp_path / "config.yaml"
    again.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    assert load_config(SFTConfig, again) == config


@pytest.mark.parametrize(
    ("override", "key", "nearest"),
    [
        ("max_step=3", "max_step", "max_steps"),
        ("optim.learning_rat=1e-5", "optim.learning_rat", "optim.learning_rate"),
        ("data.video.sample_pfs=2", "data.video.sample_pfs", "data.video.sample_fps"),
        ("model.bridge.num_query=2", "model.bridge.num_query", "model.bridge.num_queries"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest(sft_yaml: Path, override: str, key: str, nearest: str) -> None:
    message = error_of(SFTConfig, sft_yaml, override)
    assert f"unknown key '{key}'" in message
    assert f"did you mean '{nearest}'?" in message
    assert str(sft_yaml) in message


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("seed=3", "did you mean 'run.seed'"),
        ("sample_fps=2", "did you mean 'data.video.sample_fps'?"),
        ("optim.kl_coef=2", "expected one of adam_beta2, grounder_learning_rate, learning_rate"),
    ],
)
def test_a_key_in_the_wrong_group_names_the_right_one(sft_yaml: Path, override: str, hint: str) -> None:
    assert hint in error_of(SFTConfig, sft_yaml, override)


def test_unknown_key_inside_the_union(sft_yaml: Path) -> None:
    """Only keys of the tagged member are suggested: `seed` is one of the synthetic source, `tracks` of VidSTG."""
    message = error_of(SFTConfig, sft_yaml, "data.source.sede=1")
    assert "data.source" in message
    assert "sede'; did you mean" in message
    assert "seed'?" in message
    assert "tracks'?" not in error_of(SFTConfig, sft_yaml, "data.source.trackss=1")


def test_every_problem_is_listed(sft_yaml: Path) -> None:
    message = error_of(SFTConfig, sft_yaml, "max_step=3", "optim.weight_decay=-1")
    assert "max_step'" in message and "optim.weight_decay" in message


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.video.sample_fps=0", "data.video.sample_fps"),
        ("data.video.max_frames=1", "data.video.max_frames"),
        ("data.prompt.time_decimals=4", "data.prompt.time_decimals"),
        ("exposure.probability=1.5", "exposure.probability"),
        ("optim.adam_beta2=1", "optim.adam_beta2"),
        ("max_steps=many", "max_steps"),
        ("data.tasks={stvg: -1}", "data.tasks.stvg"),
        ("data.tasks={stgv: 1}", "data.tasks.stgv"),
        ("data.source.type=jsnl", "data.source"),
        ("model.dtype=float16", "model.dtype"),
    ],
)
def test_value_out_of_bounds_names_its_key(sft_yaml: Path, override: str, key: str) -> None:
    assert f"  {key}" in error_of(SFTConfig, sft_yaml, override)


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text("run: {}\n")
    message = error_of(SFTConfig, path)
    assert "run.out: Field required" in message and "data: Field required" in message


@pytest.mark.parametrize("override", ["max_steps", "=3", ""])
def test_override_without_key_or_value(sft_yaml: Path, override: str) -> None:
    assert "expected key=value" in error_of(SFTConfig, sft_yaml, override)


def test_override_below_a_value(sft_yaml: Path) -> None:
    assert "'out' is a value" in error_of(SFTConfig, sft_yaml, "run.out.name=x")


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.yaml"
    assert error_of(SFTConfig, path) == f"{path}: no such config file"


@pytest.mark.parametrize(
    ("text", "expected"), [("- a\n- b\n", "got list"), ("just words\n", "got str"), ("a: [1\n", "not valid YAML")]
)
def test_not_a_mapping(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    message = error_of(SFTConfig, path)
    assert str(path) in message and expected in message


def test_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert "run: Field required" in error_of(SFTConfig, path)


@pytest.mark.parametrize(
    "override",
    [
        "data.source.min_interval_sec=7",  # above max_interval_sec, 6
        "data.source.max_interval_sec=8",  # not below duration_sec, 8
        "data.source.duration_sec=6",
        "data.source.num_objects=[2, 1]",
        "data.source.num_objects=[0, 1]",
        "data.source.object_px=[20, 10]",
        "data.source.object_px=[14, 33]",  # above size_px / 2 = 32
    ],
)
def test_synthetic_conflicts(sft_yaml: Path, override: str) -> None:
    assert "data.source" in error_of(SFTConfig, sft_yaml, override)


@pytest.mark.parametrize("override", ["objective.loss_type=grpo", "objective.scale_rewards=group"])
def test_pathwise_needs_one_scale(rft_yaml: Path, override: str) -> None:
    """Refused together with decoder_update=pathwise (the default), fine with the other two."""
    assert "decoder_update=pathwise needs" in error_of(RFTConfig, rft_yaml, override)
    for update in ("frozen", "supervised"):
        load_config(RFTConfig, rft_yaml, [override, f"objective.decoder_update={update}"])


@pytest.mark.parametrize("task", ["temporal", "rec", "qa"])
def test_rft_wants_rewards_of_every_task(rft_yaml: Path, task: str) -> None:
    error = error_of(RFTConfig, rft_yaml, f"data.tasks={{stvg: 1, {task}: 1}}")
    assert f"rewards.tasks: expected weights for {task}" in error
    assert "at least one task" in error_of(RFTConfig, rft_yaml, "data.tasks={}")


def test_rft_refuses_batches_of_one_task_each(rft_yaml: Path) -> None:
    assert "data.batches: GRPO draws its tasks mixed" in error_of(RFTConfig, rft_yaml, "data.batches=per_task")
    assert load_config(RFTConfig, rft_yaml, ["data.batches=mixed"]).data.batches == "mixed"


@pytest.mark.parametrize("weights", ["{format: 0, temporal: 0, viou: 0}"])
def test_rewards_need_a_weight(rft_yaml: Path, weights: str) -> None:
    assert "rewards" in error_of(RFTConfig, rft_yaml, f"rewards.weights={weights}")


def test_loading_imports_no_torch(sft_yaml: Path) -> None:
    """A typo must fail before anything heavy is imported: no config module, nor loading, brings in torch."""
    modules = [f"configs.{file.stem}" for file in sorted((ROOT / "configs").glob("*.py")) if file.stem != "__init__"]
    code = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "from configs.base import load_config\n"
        "from configs.sft import SFTConfig\n"
        f"load_config(SFTConfig, {str(sft_yaml)!r})\n"
        "heavy = {'torch', 'transformers', 'numpy', 'ray', 'vllm', 'trl'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "configs.sft" in modules and "configs.rft" in modules


SCHEMAS: dict[str, type[Config]] = {
    "sft": SFTConfig,
    "rft": RFTConfig,
    "evaluat": EvaluationConfig,
    "matched_entropy": MatchedEntropyConfig,
    "data": DataConfig,
    "cells": CellTable,
    "cell": SFTConfig,
    "base": SFTConfig,
    "grounders": GrounderTable,
    "arms": ArmTable,
}
SHIPPED = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").glob("**/*.yaml"))


def schema_of(path: Path) -> type[Config]:
    """By file name (`sft*.yaml`), else by folder (`sft/`); a file that neither tells is a failure."""
    for name in (path.stem, path.parent.name):
        for prefix, schema in SCHEMAS.items():
            if name.startswith(prefix):
                return schema
    pytest.fail(f"{path}: name it as one of {list(SCHEMAS)}, or put it into such a folder")


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_yaml_parses(path: Path) -> None:
    load_config(schema_of(path), ROOT / path)


def test_some_yaml_is_shipped() -> None:
    assert SHIPPED


def test_entry_points_read_their_config_before_they_import_torch() -> None:
    """A typo fails at once: nothing heavy is imported by then, and the message stands without a traceback."""
    code = (
        "import sys, sft.train, rft.train, evaluation.run\n"
        "sys.exit(f'imported {heavy}' if (heavy := {'torch', 'transformers', 'ray', 'vllm'} & set(sys.modules)) else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "sft.train", "--config", "configs/demo/sft.yaml", "optim.lerning_rate=1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "did you mean 'optim.learning_rate'?" in result.stderr and "Traceback" not in result.stderr


def test_overrides_keep_the_other_defaults_of_their_group(tmp_path: Path) -> None:
    """One learning rate or weight changed: the rest is what a reader of the schema expects."""
    from configs.base import load_config

    path = ROOT / "configs" / "demo" / "rft.yaml"
    config = load_config(RFTConfig, path, ["optim={}", "optim.max_grad_norm=0.5", "rewards.weights.viou=2"])
    assert (config.optim.learning_rate, config.optim.grounder_learning_rate, config.optim.warmup_steps) == (
        1e-6,
        1e-5,
        0,
    )
    weights = config.rewards.weights.model_dump()
    assert {name: weight for name, weight in weights.items() if weight} == {"format": 0.1, "temporal": 1.0, "viou": 2.0}
