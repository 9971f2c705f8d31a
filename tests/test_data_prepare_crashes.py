"""A video that kills the process which reads it is one problem of that video; the others are looked at."""

import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import odd_videos as odd
import pytest

from data.preparation.pool import SturdyPool
from data.preparation.videos import Finding, VideoJob, look_at_all

# Runs when a worker starts: opening a file of one of these names is its end, of the second name only the first time.
KILLER = """
import os, signal, sys

def kill(event, arguments):
    if event != "open":
        return
    path = str(arguments[0])
    if path.endswith("deadly_once.mp4") and not os.path.exists(path + ".died"):
        os.mkdir(path + ".died")
        os.kill(os.getpid(), signal.SIGKILL)
    if path.endswith("deadly.mp4"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
"""


def start_workers_with(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


def test_a_video_that_kills_its_reader_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that died only once had a mishap. What was found is kept: nobody looks a second time."""
    start_workers_with(KILLER, tmp_path / "site", monkeypatch)
    paths = [tmp_path / f"{name}.mp4" for name in ("first", "deadly_once", "second", "deadly", "last")]
    odd.plain(paths[0])
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    jobs = [VideoJob(str(path), probe=True, decoder=None) for path in paths]
    with SturdyPool(1) as pool:  # so that the first death is that of the mishap
        found = look_at_all(jobs, chunk_path=lambda number: tmp_path / f"chunk-{number}", pool=pool, desc="")
        assert list(pool.map(len, ["ab"], if_died=ord)) == [2]
    dead = Finding(str(paths[3]), problem="crashed", cause="the process that read it died")
    assert list(found) == [str(path) for path in paths]
    assert [finding for finding in found.values() if finding.problem] == [dead]
    assert all(finding.info and finding.info.num_frames == 40 for finding in found.values() if finding != dead)
    shutil.rmtree(tmp_path / "site")
    with SturdyPool(1) as pool:
        again = look_at_all(jobs, chunk_path=lambda number: tmp_path / f"chunk-{number}", pool=pool, desc="")
    assert again == found


def test_workers_that_cannot_start_are_no_fault_of_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_workers_with("import os; os._exit(1)", tmp_path / "site", monkeypatch)
    with SturdyPool(1) as pool, pytest.raises(BrokenProcessPool):
        list(pool.map(len, ["ab"], if_died=ord))
