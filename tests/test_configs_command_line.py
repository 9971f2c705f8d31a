"""How commands end that cannot do what was asked: one reason, status 2, and no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import write_config

from configs.base import ConfigError
from configs.command_line import check_out_file, check_out_folder, config_from_command_line, explained
from configs.run import ROOT
from configs.sft import SFTConfig
from evaluation import curves, score, submission


def test_a_reason_is_one_log_entry(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended, explained(KeyError):
        raise KeyError("no such thing")
    assert (ended.value.code, len(caplog.records), caplog.records[0].getMessage()) == (2, 1, "'no such thing'")
    with pytest.raises(IndexError), explained(KeyError):
        raise IndexError


def test_a_wrong_config_is_said_without_usage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path, "sft.yaml", {"run": {"uot": "x"}})
    with pytest.raises(SystemExit) as ended:
        config_from_command_line(SFTConfig, None, ["--config", str(path)])
    assert ended.value.code == 2 and "did you mean 'run.out'" in caplog.records[-1].getMessage()
    assert capsys.readouterr().err == ""


def test_torchrun_ends_with_the_reason(tmp_path: Path) -> None:
    """Two ranks; the frame, which is the last thing that torchrun prints, has our message for a traceback."""
    tree = {"run": {"out": str(tmp_path / "run")}, "data": {"source": {"type": "synthetic", "root": str(tmp_path)}}}
    path = write_config(tmp_path, "sft.yaml", tree)
    launch = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", "2", "-m"]
    result = subprocess.run(
        [sys.executable, "-m", *launch, "sft.train", "--config", str(path), "model.grounder=brige"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode != 0
    _, frame = result.stderr.split("Root Cause (first observed failure):")
    assert "exitcode  : 2" in frame
    assert "traceback : model.grounder: expected one of bridge, interleaved, text; got 'brige'" in frame
    assert len(frame.splitlines()) < 12


@pytest.mark.parametrize(
    ("check", "name", "expected"),
    [
        (check_out_file, ".", "expected a file, found a folder"),
        (check_out_file, "none/a.json", "no such folder: .*none$"),
        (check_out_file, "file/a.json", "no such folder: .*file$"),
        (check_out_folder, "file", "expected a folder, .*file is a file"),
        (check_out_folder, "file/a/b", "expected a folder, .*file is a file"),
        (curves.check_picture, "a.docx", r"a.docx: expected a file that ends in one of .*\.png"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(
    check: Callable[[Path], None], name: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=expected):
        check(tmp_path / name)
    check_out_file(tmp_path / "file")
    check_out_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("main", "arguments", "expected"),
    [
        (submission.main, ["--predictions", "p", "--annotations", "a", "--out", "none/o"], "--out none/o: no such folder"),
        (score.main, ["--predictions", "p", "--annotations", "a", "--protocol", "canon", "--out", "file"], "file is a file"),
        (curves.main, ["--runs", "r", "--out", "none/c.png"], "--out none/c.png: no such folder"),
        (curves.main, ["--runs", "r", "--out", "c.png"], "--runs r: expected a run folder with metrics.jsonl in it"),
        (curves.main, ["--runs", "run", "--out", "c.png"], "--runs: nothing to draw among 1 rows"),
    ],
)  # fmt: skip
def test_the_place_is_looked_at_before_the_work(
    main: Callable[[list[str]], None],
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """None of the other files is there."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("run").mkdir()
    Path("run/metrics.jsonl").write_text(json.dumps({"stage": "sft", "step": 1}) + "\n")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and expected in caplog.records[-1].getMessage()
