"""Decoded frames on disk, so that a video is decoded once for several runs, epochs and ranks.

An entry is an uncompressed .npz, whose members carry CRC-32 sums: it is whole and as written, or it is decoded again.
Entries appear by rename, so that ranks may share a folder; the longest unused ones make room for new ones.
"""

import os
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np

from data.video_decoders import VideoReader
from data.video_frames import Frames, VideoDecodeError

ClipKey = tuple[str, int, int, str, bytes]
"""File, time of its last change in ns, its size in bytes, decoder, frame indices."""


def clip_key(path: Path | str, frame_idx_T: np.ndarray, decoder: str) -> ClipKey:
    """What decoded frames depend on; a file that has changed has another key. Raises VideoDecodeError."""
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        raise VideoDecodeError(path, (error.strerror or str(error)).lower()) from None
    indices = np.asarray(frame_idx_T, dtype=np.int64).tobytes()
    return os.path.abspath(path), stat.st_mtime_ns, stat.st_size, decoder, indices


class DiskCache:
    """A VideoReader that keeps what another one has read, up to `max_gib` in `folder`."""

    def __init__(self, read: VideoReader, folder: Path, *, max_gib: float, decoder: str) -> None:
        self.read, self.folder, self.max_bytes, self.decoder = read, folder, int(max_gib * 2**30), decoder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, path: Path, frame_idx_T: np.ndarray) -> Frames:
        key = clip_key(path, frame_idx_T, self.decoder)
        entry = self.folder / f"{sha256(repr(key).encode()).hexdigest()}.npz"
        frames = _load(entry)
        if frames is None:
            frames = self.read(path, frame_idx_T)
            self._store(entry, frames)
        return frames

    def _store(self, entry: Path, frames: Frames) -> None:
        num_bytes = sum(array.nbytes for array in frames) + 1024
        if num_bytes > self.max_bytes:
            return
        _make_room(self.folder, self.max_bytes - num_bytes)
        aside = entry.with_name(f".{uuid4().hex}")
        try:
            with aside.open("wb") as stream:
                np.savez(stream, frames_THW3=frames[0], times_sec_T=frames[1])
            with suppress(FileNotFoundError):  # another rank made room
                aside.rename(entry)
        finally:
            aside.unlink(missing_ok=True)


def _load(entry: Path) -> Frames | None:
    """The frames of an entry, which is then the latest used one; None where it is absent or damaged."""
    try:
        with np.load(entry, allow_pickle=False) as arrays:
            frames = arrays["frames_THW3"], arrays["times_sec_T"]
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
        entry.unlink(missing_ok=True)
        return None
    with suppress(FileNotFoundError):  # another rank made room
        os.utime(entry)
    return frames


def _make_room(folder: Path, max_bytes: int) -> None:
    """Delete the longest unused files, also what killed writers left, until at most `max_bytes` are there."""
    files = []
    for file in os.scandir(folder):
        try:
            files.append((file.stat().st_mtime_ns, file.stat().st_size, file.path))
        except FileNotFoundError:  # another rank made room
            continue
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
