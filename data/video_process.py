"""A reader in a process of its own, which is killed when a read takes too long and started again for the next one.

A decoder can hang (a dead network mount, a damaged file) or crash; neither may take the training with it. The process
is a plain subprocess on two pipes, so that it also works in a DataLoader worker, which may have no multiprocessing
children. It imports no torch, and ends by itself when its owner is gone.

    python -m data.video_process pyav        (by ReaderProcess only: requests on stdin, answers on stdout)

A message is 4 bytes of length and that much JSON; frames and times follow as raw bytes.
"""

import contextlib
import importlib
import json
import math
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from data.video_decoders import READERS
from data.video_frames import Frames, VideoDecodeError

START_LIMIT_SEC = 120.0
"""An interpreter with numpy that needs longer to start is no matter of the video."""


class ReaderStartError(RuntimeError):
    """The reader process cannot be started; not the fault of any video."""


class ReaderProcess:
    """A VideoReader: reads in a subprocess, started when it is first needed; safe to share between threads.

    Raises VideoDecodeError, also for a read that takes longer than `timeout_sec` or that the process dies of. After a
    fork the child has a process of its own; a copy through pickle too.
    """

    def __init__(self, decoder: str, timeout_sec: float) -> None:
        self.decoder, self.timeout_sec = decoder, timeout_sec
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        _ALL.add(self)

    def __reduce__(self) -> Any:
        return ReaderProcess, (self.decoder, self.timeout_sec)

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process and self._process.pid

    def __call__(self, path: Path, frame_idx_T: np.ndarray) -> Frames:
        with self._lock:
            process, answered = self._asked(path, frame_idx_T), False
            try:
                answer = _answer(process, time.monotonic() + self.timeout_sec)
                answered = True
            except TimeoutError:
                raise VideoDecodeError(path, f"{self.decoder}: took longer than {self.timeout_sec:g} s") from None
            except (EOFError, BrokenPipeError):
                raise VideoDecodeError(path, f"{self.decoder}: the reader process died ({_how(process)})") from None
            finally:
                if not answered:  # what is still to come on its pipe belongs to no other read
                    self._stop()
        if isinstance(answer, str):
            raise VideoDecodeError(path, answer)
        return answer

    def _asked(self, path: Path, frame_idx_T: np.ndarray) -> "subprocess.Popen[bytes]":
        """A process that has taken the request; one that ended before is no fault of this video."""
        for process in (self._running() for _ in range(2)):
            try:
                _ask(process, path, frame_idx_T)
                return process
            except (EOFError, BrokenPipeError, TimeoutError):
                self._stop()
        raise ReaderStartError(f"the reader process of {self.decoder} takes no requests")

    def close(self) -> None:
        """End the process; the next read starts another one."""
        with self._lock:
            self._stop()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = _start(self.decoder)
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin and process.stdout
            process.kill()
            process.stdin.close()
            process.stdout.close()
            _ended(process)

    def _forget(self) -> None:
        # In the child of a fork: the process belongs to the parent, only our ends of its pipes are dropped.
        self._process, self._lock = None, threading.Lock()


_ALL: "weakref.WeakSet[ReaderProcess]" = weakref.WeakSet()


def _forget_all() -> None:
    for reader in list(_ALL):
        reader._forget()


os.register_at_fork(after_in_child=_forget_all)


@cache
def shared_reader(decoder: str, timeout_sec: float) -> ReaderProcess:
    """One reader process for everything that this process reads alike."""
    return ReaderProcess(decoder, timeout_sec)


def _start(decoder: str) -> "subprocess.Popen[bytes]":
    root = str(Path(__file__).parents[1])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "data.video_process", decoder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert process.stdout
    try:
        _receive(process.stdout.fileno(), time.monotonic() + START_LIMIT_SEC)
    except (EOFError, TimeoutError) as error:
        cause = "does not start" if isinstance(error, TimeoutError) else f"ended at once ({_how(process)})"
        process.kill()
        raise ReaderStartError(f"the reader process of {decoder} {cause}") from error
    return process


def _ask(process: "subprocess.Popen[bytes]", path: Path, frame_idx_T: np.ndarray) -> None:
    """Returns when the process says that it begins to read. Raises EOFError and BrokenPipeError where it has ended."""
    assert process.stdin and process.stdout
    _send(process.stdin, {"path": str(path), "frame_idx": np.asarray(frame_idx_T).tolist()})
    _receive(process.stdout.fileno(), time.monotonic() + START_LIMIT_SEC)


def _answer(process: "subprocess.Popen[bytes]", deadline: float) -> Frames | str:
    """Frames, or the cause why there are none. Raises TimeoutError, EOFError and BrokenPipeError."""
    assert process.stdout
    source = process.stdout.fileno()
    answer = _receive(source, deadline)
    if "cause" in answer:
        return answer["cause"]
    times, frames = bytearray(8 * answer["shape"][0]), bytearray(math.prod(answer["shape"]))
    _fill(source, memoryview(times), deadline)
    _fill(source, memoryview(frames), deadline)
    return np.frombuffer(frames, dtype=np.uint8).reshape(answer["shape"]), np.frombuffer(times)


def _how(process: "subprocess.Popen[bytes]") -> str:
    """How a process ended whose pipes are closed."""
    code = _ended(process)
    if code is None:
        return "still ending"
    return f"exit code {code}" if code >= 0 else f"exit code {code}, {signal.Signals(-code).name}"


def _ended(process: "subprocess.Popen[bytes]", limit_sec: float = 5.0) -> int | None:
    # Not for ever: even SIGKILL waits for a read from a dead network mount. `subprocess` collects such a one later.
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(limit_sec)
    return None


def _send(target: IO[bytes], message: dict[str, Any], *arrays: np.ndarray) -> None:
    content = json.dumps(message).encode()
    parts = [memoryview(struct.pack("=I", len(content)) + content)]
    parts += [np.ascontiguousarray(array).data.cast("B") for array in arrays]
    for part in parts:
        while part:
            part = part[os.write(target.fileno(), part) :]


def _receive(source: int, deadline: float = float("inf")) -> dict[str, Any]:
    header = bytearray(4)
    _fill(source, memoryview(header), deadline)
    content = bytearray(struct.unpack("=I", header)[0])
    _fill(source, memoryview(content), deadline)
    return json.loads(content)


def _fill(source: int, view: memoryview, deadline: float) -> None:
    """Read until `view` is full. Raises TimeoutError and EOFError."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    while view:
        left_ms = None if deadline == float("inf") else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left_ms):
            raise TimeoutError
        count = os.readv(source, [view])
        if count == 0:
            raise EOFError
        view = view[count:]


def _serve(decoder: str) -> None:
    """Answer requests until stdin ends."""
    # What a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    for library in ("av", "decord") if decoder == "decord" else ("av",):
        importlib.import_module(library)  # loading it is no part of a read's time
    _send(answers, {"ready": True})
    while True:
        request = requests.get()
        _send(answers, {"reading": request["path"]})
        try:
            frames_THW3, times_sec_T = READERS[decoder](Path(request["path"]), np.array(request["frame_idx"]))
        except VideoDecodeError as error:
            _send(answers, {"cause": error.cause})
            continue
        _send(answers, {"shape": frames_THW3.shape}, times_sec_T.astype(np.float64), frames_THW3)


def _listen(requests: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Pass requests on; ends the process with its owner, also in the middle of a read."""
    while True:
        try:
            requests.put(_receive(0))
        except EOFError:
            os._exit(0)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the owner is gone
        _serve(sys.argv[1])
