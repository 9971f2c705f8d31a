"""The reader process: ends with its owner, with its time and with a crash; answers in workers and threads."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import odd_videos as odd
import psutil
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from configs.video import VideoConfig
from data.video import open_reader
from data.video_decoders import READERS
from data.video_frames import VideoDecodeError
from data.video_process import ReaderProcess

FIRST = np.array([0])
# Reads a pipe that nobody writes to, which hangs, after saying which process does so; or waits, with the process idle.
OWNER = """
import sys, time, threading, numpy as np
from pathlib import Path
from data.video_process import ReaderProcess
reader = ReaderProcess("pyav", timeout_sec=600.0)
reader(Path(sys.argv[1]), np.array([0]))
print(reader.pid, flush=True)
reader(Path(sys.argv[2]), np.array([0])) if sys.argv[2] else time.sleep(600)
"""


@pytest.fixture()
def video(tmp_path: Path) -> Path:
    """A good one."""
    return odd.plain(tmp_path / "v.mp4")


@pytest.fixture()
def hanging(tmp_path: Path) -> Path:
    """A named pipe without a writer: opening it never returns."""
    os.mkfifo(tmp_path / "hanging.mp4")
    return tmp_path / "hanging.mp4"


@pytest.fixture()
def reader() -> Iterator[ReaderProcess]:
    """With a limit that no good read of these tests reaches."""
    process = ReaderProcess("pyav", timeout_sec=60.0)
    yield process
    process.close()


def wait_until_gone(pid: int) -> None:
    """Fails after a minute."""
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_read_that_hangs_is_killed_and_the_next_one_works(video: Path, hanging: Path, decoder: str) -> None:
    reader = ReaderProcess(decoder, timeout_sec=60.0)
    expected, _ = reader(video, FIRST)
    pid, reader.timeout_sec = reader.pid, 0.2
    assert pid is not None
    with pytest.raises(VideoDecodeError) as caught:
        reader(hanging, FIRST)
    assert str(caught.value) == f"{hanging}: {decoder}: took longer than 0.2 s"
    wait_until_gone(pid)
    reader.timeout_sec = 60.0
    np.testing.assert_array_equal(reader(video, FIRST)[0], expected)
    assert reader.pid != pid
    reader.close()


@pytest.mark.parametrize(("number", "how"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "SIGKILL")])
def test_a_crash_names_its_signal_and_the_next_read_works(
    reader: ReaderProcess, video: Path, hanging: Path, number: int, how: str
) -> None:
    """The signal comes in the middle of a read, as a fault in a decoder would."""
    reader(video, FIRST)
    pid = reader.pid
    assert pid is not None
    threading.Timer(0.1, os.kill, (pid, number)).start()
    with pytest.raises(VideoDecodeError) as caught:
        reader(hanging, FIRST)
    assert str(caught.value) == f"{hanging}: pyav: the reader process died (exit code -{int(number)}, {how})"
    assert len(reader(video, FIRST)[0]) == 1


def test_a_process_that_ended_between_reads_is_no_fault_of_the_next_video(reader: ReaderProcess, video: Path) -> None:
    reader(video, FIRST)
    pid = reader.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    assert len(reader(video, FIRST)[0]) == 1


@pytest.mark.parametrize("is_hanging", [False, True], ids=["idle", "in the middle of a read"])
def test_no_process_outlives_a_killed_owner(video: Path, hanging: Path, is_hanging: bool) -> None:
    command = [sys.executable, "-c", OWNER, str(video), str(hanging) if is_hanging else ""]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        assert psutil.pid_exists(pid)
        owner.kill()
    wait_until_gone(pid)


def test_neither_the_reader_nor_its_process_loads_torch(reader: ReaderProcess, video: Path) -> None:
    """Its start takes a fraction of a second."""
    code = "import data.video, data.video_process, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    reader(video, FIRST)
    files = {file.path for file in psutil.Process(reader.pid).memory_maps()}
    assert any("numpy" in path for path in files) and not any("torch" in path for path in files)


def test_frames_are_those_of_this_process(reader: ReaderProcess, video: Path) -> None:
    order = np.array([3, 1, 39, 3])
    for one, other in zip(reader(video, order), READERS["pyav"](video, order), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype and one.flags.writeable


class Frames(Dataset):
    """The level of frame i of a video."""

    def __init__(self, reader: ReaderProcess, path: Path) -> None:
        self.reader, self.path = reader, path

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        """Level at the centre, and who has read it for whom."""
        frames_THW3, _ = self.reader(self.path, np.array([index]))
        return int(frames_THW3[0, odd.HEIGHT // 2, 0, 0]), self.reader.pid or 0, os.getpid()


def test_forked_workers_have_processes_of_their_own(reader: ReaderProcess, video: Path) -> None:
    """The parent's is running when they start, and goes on afterwards."""
    reader(video, FIRST)
    mine = reader.pid
    rows = torch.cat([torch.stack(row, dim=-1) for row in DataLoader(Frames(reader, video), num_workers=2)])
    np.testing.assert_allclose((rows[:, 0].numpy() - 20) / 5, np.arange(8), atol=0.5)
    owners = {int(worker): int(process) for _, process, worker in rows}
    assert len(owners) == 2 and mine not in owners.values() and len(set(owners.values())) == 2
    for process in owners.values():
        wait_until_gone(process)
    reader(video, FIRST)
    assert reader.pid == mine


def test_threads_take_turns(reader: ReaderProcess, video: Path) -> None:
    levels: dict[int, float] = {}

    def read(index: int) -> None:
        levels[index] = reader(video, np.array([index]))[0][0, odd.HEIGHT // 2].mean()

    threads = [threading.Thread(target=read, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose([(levels[index] - 20) / 5 for index in range(8)], np.arange(8), atol=0.5)


def test_errors_and_readers_go_through_pickle(reader: ReaderProcess) -> None:
    error = pickle.loads(pickle.dumps(VideoDecodeError(Path("a/v.mp4"), "no such file")))
    assert type(error) is VideoDecodeError and (error.path, error.cause) == ("a/v.mp4", "no such file")
    assert str(error) == "a/v.mp4: no such file"
    copy = pickle.loads(pickle.dumps(reader))
    assert (copy.decoder, copy.timeout_sec, copy.pid) == ("pyav", 60.0, None)


def test_the_config_chooses(video: Path) -> None:
    """Without a limit reads happen here; with one, everything alike shares a process."""
    assert open_reader(VideoConfig(timeout_sec=None, decoder="pyav")) is READERS["pyav"]
    limited = VideoConfig(timeout_sec=50.0, decoder="pyav")
    reader = open_reader(limited)
    assert isinstance(reader, ReaderProcess) and open_reader(limited) is reader
    assert (reader.decoder, reader.timeout_sec) == ("pyav", 50.0)
