"""data.prepare killed at any moment and started again leaves the folder of an uninterrupted run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from configs.run import ROOT
from data.preparation.videos import VIDEOS_PER_CHUNK
from data.video import write_video

# Two full chunks in one split, so that there is something to go on from; a video that is missing, one that is text.
NUM_VIDEOS = 2 * VIDEOS_PER_CHUNK + 2


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations in seconds, as Charades-STA's JSON, of two splits; their videos are one file under many names."""
    folder = tmp_path_factory.mktemp("published")
    videos = folder / "videos"
    videos.mkdir()
    frames = [np.full((32, 32, 3), 20 + t, dtype=np.uint8) for t in range(8)]
    write_video(videos / "00000.mp4", frames, fps=8.0, width=32, height=32)
    for number in range(1, NUM_VIDEOS - 1):
        shutil.copy(videos / "00000.mp4", videos / f"{number:05d}.mp4")
    (videos / "00005.mp4").write_text("not a video")
    names = [f"{number:05d}" for number in range(NUM_VIDEOS)]
    for split, chosen in (("train", names), ("test", names[:3])):
        tree = {
            name: {"duration": 1.0, "timestamps": [[0.25, 0.75], [0.5, 9.0]], "sentences": ["a door opens", "it shuts"]}
            for name in chosen
        }
        (folder / f"charades_sta_{split}.json").write_text(json.dumps(tree))
    return folder


def start(published: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command; `--out out` is relative to the folder, so that its report is the same in each."""
    words = ["--source", "charades_sta", "--annotations", str(published), "--videos", str(published / "videos")]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "data.prepare", *words, "--out", "out", "--num-processes", "1", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(timeout=300) == 0, (folder / "log").read_text()[-3000:]


def files_of(out: Path) -> dict[str, bytes]:
    """Every file by its path in the folder."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def check_kills(published: Path, tmp_path: Path, *options: str, num_kills: int, seed: int) -> None:
    """Kills the command alone: the processes that it started have to end by themselves.

    Moments are drawn over the time that the uninterrupted run took, which a run that goes on may need less of.
    """
    began = time.monotonic()
    finish(start(published, tmp_path / "whole", *options), tmp_path / "whole")
    whole_sec = time.monotonic() - began
    rng = random.Random(seed)
    for _ in range(num_kills):
        process = start(published, tmp_path / "killed", *options)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * whole_sec)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    finish(start(published, tmp_path / "killed", *options), tmp_path / "killed")
    assert files_of(tmp_path / "killed" / "out") == files_of(tmp_path / "whole" / "out")
    report = json.loads((tmp_path / "killed" / "out" / "report.json").read_text())
    assert len(report["splits"]["train"]["videos"]["problems"]) == 2


def test_killed_three_times(published: Path, tmp_path: Path) -> None:
    check_kills(published, tmp_path, num_kills=3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times(published: Path, tmp_path: Path) -> None:
    """With every video decoded."""
    check_kills(published, tmp_path, "--check-videos", num_kills=20, seed=2)
