"""Data presets: what they hold, how a config takes one and changes it, and what is wrong with a mixture."""

from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from configs.base import ConfigError, load_config
from configs.data import DataConfig
from configs.rft import RFTConfig
from configs.sft import SFTConfig
from configs.sources import JsonlSource, MixtureSource, VidstgSource
from data.annotations import AnnotationError
from data.sources import SOURCES, load_samples

ROOT = Path(__file__).resolve().parent.parent
PRESETS = sorted((ROOT / "configs" / "data").glob("*.yaml"))
TASK_OF = {
    "vidstg": "stvg", "hcstvg_v2": "stvg", "didemo": "temporal", "charades_sta": "temporal", "tacos": "temporal",
    "activitynet_captions": "temporal", "qvhighlights": "temporal", "refcoco": "rec", "jsonl": "qa",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of presets count from the working directory."""
    monkeypatch.chdir(ROOT)


def write(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


def sft(tmp_path: Path, data: dict, *overrides: str) -> DataConfig:
    return load_config(SFTConfig, write(tmp_path / "sft.yaml", {"run": {"out": "x"}, "data": data}), overrides).data


def parts_of(data: DataConfig) -> MixtureSource:
    assert isinstance(data.source, MixtureSource)
    return data.source


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_a_mixture_of_known_sources_in_datasets(path: Path) -> None:
    source = parts_of(load_config(DataConfig, path))
    for part in source.parts.values():
        assert part.source.type in SOURCES
        paths = part.source.model_dump(include={"annotations", "videos", "tracks", "root"})
        assert all(value.startswith("datasets/") for value in paths.values() if value)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("stvg", {"stvg": 90.8}),
        ("uni_stg", {"temporal": 50, "rec": 320, "stvg": 110, "qa": 200}),
        ("bridge_multitask", {"stvg": 50, "temporal": 20, "rec": 20, "qa": 10}),
    ],
)
def test_weights_of_the_presets(name: str, weights: dict[str, float]) -> None:
    """uni_stg: thousands of samples of SpaceVLLM's Uni-STG and its general data. The others say theirs in their heads."""
    data = load_config(DataConfig, ROOT / "configs" / "data" / f"{name}.yaml")
    found: dict[str, float] = defaultdict(float)
    for part in parts_of(data).parts.values():
        found[TASK_OF[part.source.type]] += part.weight
    assert found == pytest.approx(weights)
    assert set(data.tasks) == set(weights)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_absent_data_of_a_preset_names_the_part(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_config(DataConfig, path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AnnotationError, match=r"datasets/VidSTG-Dataset/annotations: .*part 'vidstg' of the mixture"):
        load_samples(data, "train")


def test_a_config_takes_a_preset_and_changes_it(tmp_path: Path) -> None:
    """Its own keys and the command line's go before the preset's, one by one; new parts are added."""
    own = {
        "include": "configs/data/stvg.yaml",
        "batches": "per_task",
        "source": {"parts": {"vidstg": {"weight": 3}, "mine": {"source": {"type": "jsonl", "root": "here"}}}},
    }
    data = sft(tmp_path, own, "data.source.parts.hcstvg.weight=0", "data.video.sample_fps=1")
    parts = parts_of(data).parts
    assert {name: part.weight for name, part in parts.items()} == {"vidstg": 3, "hcstvg": 0, "mine": 1}
    assert isinstance(parts["vidstg"].source, VidstgSource) and parts["mine"].source == JsonlSource(root="here")
    assert (data.batches, data.tasks, data.video.sample_fps) == ("per_task", {"stvg": 1.0}, 1.0)


def test_a_run_folder_needs_no_preset(tmp_path: Path) -> None:
    """What a run writes down is complete, and loads to the same config."""
    data = sft(tmp_path, {"include": "configs/data/bridge_multitask.yaml"})
    assert load_config(DataConfig, write(tmp_path / "resolved.yaml", data.model_dump(mode="json"))) == data


def test_grpo_takes_the_stvg_part_of_a_preset(tmp_path: Path) -> None:
    data = {"include": "configs/data/uni_stg.yaml", "tasks": {"temporal": 0, "rec": 0, "qa": 0}}
    tree = {"run": {"out": "x"}, "checkpoint": "y", "data": data}
    config = load_config(RFTConfig, write(tmp_path / "rft.yaml", tree))
    assert [task for task, weight in config.data.tasks.items() if weight > 0] == ["stvg"]


@pytest.mark.parametrize(
    ("included", "message"),
    [
        ("absent.yaml", "sft.yaml includes absent.yaml: no such config file"),
        (["a.yaml"], "expected the path of a YAML file"),
        ("{tmp_path}/loop.yaml", "loop.yaml: a file cannot include itself"),
        ("{tmp_path}/nested.yaml", "nested.yaml includes absent.yaml: no such config file"),
        ("{tmp_path}/typo.yaml", r"sft.yaml with .*typo.yaml:\n  unknown key 'data.vdeo'; did you mean 'data.video'"),
        ("{tmp_path}/list.yaml", "list.yaml: expected a mapping"),
    ],
)
def test_errors_of_an_include_name_the_files(tmp_path: Path, included: object, message: str) -> None:
    write(tmp_path / "loop.yaml", {"include": str(tmp_path / "loop.yaml")})
    write(tmp_path / "nested.yaml", {"include": "absent.yaml"})
    write(tmp_path / "typo.yaml", {"vdeo": {}, "source": {"type": "jsonl", "root": "x"}})
    (tmp_path / "list.yaml").write_text("- a\n")
    name = included.format(tmp_path=tmp_path) if isinstance(included, str) else included
    with pytest.raises(ConfigError, match=message):
        sft(tmp_path, {"include": name})


JSONL = {"type": "jsonl", "root": "x"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "data.source.parts: Dictionary should have at least 1 item"),
        ({"a/b": {"source": JSONL}}, r"data.source.parts.a/b.*String should match pattern"),
        (
            {"a": {"source": JSONL, "weight": -1}},
            "data.source.parts.a.weight: Input should be greater than or equal to 0",
        ),
        ({"a": {"source": JSONL, "tasks": {"stgv": 1}}}, "data.source.parts.a.tasks.stgv"),
        ({"a": {"source": JSONL, "wight": 1}}, "unknown key 'data.source.parts.a.wight'; did you mean .*weight"),
        ({"a": {"source": {"type": "mixture", "parts": {}}}}, "data.source.parts.a.source: Input tag 'mixture'"),
        ({"a": {"source": {"type": "jsonl", "rot": "x"}}}, "unknown key 'data.source.parts.a.source.rot'"),
    ],
)
def test_mistakes_in_a_mixture(tmp_path: Path, parts: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sft(tmp_path, {"source": {"type": "mixture", "parts": parts}})
