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


ACCEPTING = ("--bad-records", "skip", "--problem-videos", "skip")


def start(published: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command; `--out out` is relative to the folder, so that its report is the same in each."""
    words = ["--source", "charades_sta", "--annotations", str(published), "--videos", str(published / "videos")]
    folder.mkdir(exist_ok=True)
    cache = str(published.parent / "bytecode")  # so that libraries are compiled once, not by each command
    return subprocess.Popen(
        [sys.executable, "-m", "data.prepare", *words, "--out", "out", "--num-processes", "1", *ACCEPTING, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.wait(timeout=300) == 0, (folder / "log").read_text()[-3000:]


def files_of(out: Path) -> dict[str, bytes]:
    """Every file by its path in the folder."""
    return {name: (out / name).read_bytes() for name in names_of(out)}


def names_of(out: Path) -> set[str]:
    """Every file as its path in the folder, those that are being written too."""
    return {str((Path(folder) / name).relative_to(out)) for folder, _, names in os.walk(out) for name in names}


def kill_at_news(process: subprocess.Popen[bytes], out: Path, before: set[str], *, num_files: int) -> set[str] | None:
    """Kills the command as soon as it has written that many files; the processes that it started have to end by
    themselves. -> the new files, or None where the command finished first."""
    news: set[str] = set()
    while len(news) < num_files:
        if process.poll() is not None:
            return None
        time.sleep(0.002)
        news |= names_of(out) - before
    process.send_signal(signal.SIGKILL)
    return news if process.wait() == -signal.SIGKILL else None


def check_kills(published: Path, tmp_path: Path, *options: str, num_kills: int, most_files: int, seed: int) -> None:
    """Counts kills that hit a running command. One that finishes before is checked too, and the next is of a new folder."""
    finish(start(published, tmp_path / "whole", *options), tmp_path / "whole")
    whole, folder = files_of(tmp_path / "whole" / "out"), tmp_path / "killed"
    rng, hits = random.Random(seed), list[set[str]]()
    while len(hits) < num_kills:
        before = names_of(folder / "out")
        process = start(published, folder, *options)
        news = kill_at_news(process, folder / "out", before, num_files=rng.randint(1, most_files))
        if news is None:
            finish(process, folder)
            assert files_of(folder / "out") == whole
            shutil.rmtree(folder)
        else:
            hits.append(news)
    finish(start(published, folder, *options), folder)
    assert files_of(folder / "out") == whole
    assert any(name.startswith(".partial/videos/train-") for news in hits for name in news)
    report = json.loads(whole["report.json"])
    assert len(report["splits"]["train"]["videos"]["problems"]) == 2


def test_killed_three_times(published: Path, tmp_path: Path) -> None:
    check_kills(published, tmp_path, num_kills=3, most_files=3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times(published: Path, tmp_path: Path) -> None:
    """With every video decoded; up to the last files that the command writes."""
    check_kills(published, tmp_path, "--check-videos", num_kills=20, most_files=14, seed=2)
