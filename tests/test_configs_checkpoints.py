"""What a checkpoint folder is told by."""

from pathlib import Path

import pytest
from tiny import GROUNDED, Tiny

from configs.checkpoints import CheckpointError, check_checkpoint
from model.build import load_checkpoint


def folder_with(path: Path, *names: str) -> Path:
    """Empty folders, and files where a name has an ending."""
    for name in names:
        (path / name).write_text("{}") if "." in name else (path / name).mkdir()
    return path


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ((), ""),
        (("mllm",), ""),
        (("config.json",), ""),
        (("config.yaml", "checkpoint"), "; did you mean {folder}/checkpoint?"),
    ],
)
def test_what_is_no_checkpoint(names: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *names)
    expected = f"{folder}: expected a checkpoint folder with mllm/ and config.json in it" + hint.format(folder=folder)
    with pytest.raises(CheckpointError) as loaded:
        load_checkpoint(folder, dtype="float32")
    assert str(loaded.value) == expected
    with pytest.raises(CheckpointError) as checked:
        check_checkpoint(folder, origin="checkpoint=")
    assert str(checked.value) == f"checkpoint={expected}"


@pytest.mark.parametrize("grounder", GROUNDED)
def test_what_a_run_writes_is_one(grounder: str, tiny_of: dict[str, Tiny]) -> None:
    check_checkpoint(tiny_of[grounder].folder)
