"""Decoded frames on disk, so that a video is decoded once for several runs, epochs and ranks.

An entry is a SHA-256 sum and what it is of, two arrays: it is whole and as written, or it is decoded again. Entries
appear by rename, so that ranks may share a folder; the longest unused ones make room for new ones. They lie in a
sub-folder of their own, and only files of its naming are ever touched: the folder may hold anything else.
"""

import os
import re
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np

from configs.base import ConfigError
from data.video_decoders import VideoReader
from data.video_frames import Frames, VideoDecodeError

SUBFOLDER = "bridge-stg-decoded-clips"
OURS = re.compile(r"clip-[0-9a-f]{64}\.frames|\.writing-[0-9a-f]{32}\.frames")
"""An entry, and one that is being written."""
DIGEST_BYTES = 32
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
    """A VideoReader that keeps what another one has read, up to `max_gib` in a sub-folder of `folder`.

    Raises ConfigError where that folder cannot be made, or holds a folder in the place of a file.
    """

    def __init__(self, read: VideoReader, folder: Path, *, max_gib: float, decoder: str) -> None:
        self.read, self.folder, self.max_bytes, self.decoder = read, folder / SUBFOLDER, int(max_gib * 2**30), decoder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cause = error.strerror or str(error)
            raise ConfigError(f"data.video.decode_cache: expected a folder at {self.folder}: {cause}") from None

    def __call__(self, path: Path, frame_idx_T: np.ndarray) -> Frames:
        key = clip_key(path, frame_idx_T, self.decoder)
        entry = self.folder / f"clip-{sha256(repr(key).encode()).hexdigest()}.frames"
        frames = _load(entry)
        if frames is None:
            frames = self.read(path, frame_idx_T)
            self._store(entry, frames)
        return frames

    def _store(self, entry: Path, frames: Frames) -> None:
        content = _packed(frames)
        if len(content) > self.max_bytes:
            return
        _make_room(self.folder, self.max_bytes - len(content))
        aside = entry.with_name(f".writing-{uuid4().hex}.frames")
        try:
            aside.write_bytes(content)
            with suppress(FileNotFoundError):  # another rank made room
                aside.rename(entry)
        finally:
            aside.unlink(missing_ok=True)


def _packed(frames: Frames) -> bytes:
    """The sum and the two arrays, each as .npy."""
    stream = BytesIO(bytes(DIGEST_BYTES))
    stream.seek(DIGEST_BYTES)
    for array in frames:
        np.save(stream, array, allow_pickle=False)
    with stream.getbuffer() as content:
        content[:DIGEST_BYTES] = sha256(content[DIGEST_BYTES:]).digest()
    return stream.getvalue()


def _unpacked(content: bytes) -> Frames | None:
    """What `_packed` was given; None where a single bit is another one, be it of pixels, shapes or the sum."""
    if sha256(memoryview(content)[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        return None
    stream = BytesIO(content)
    stream.seek(DIGEST_BYTES)
    frames_THW3, times_sec_T = (np.load(stream, allow_pickle=False) for _ in range(2))
    return frames_THW3, times_sec_T


def _load(entry: Path) -> Frames | None:
    """The frames of an entry, which is then the latest used one; None where it is absent or damaged.

    Raises ConfigError for a folder in its place.
    """
    try:
        frames = _unpacked(entry.read_bytes())
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise ConfigError(f"data.video.decode_cache: expected a file at {entry}, found a folder") from None
    if frames is None:
        entry.unlink(missing_ok=True)
        return None
    with suppress(FileNotFoundError):  # another rank made room
        os.utime(entry)
    return frames


def _make_room(folder: Path, max_bytes: int) -> None:
    """Delete the longest unused entries, also what killed writers left, until at most `max_bytes` are there."""
    files = []
    for file in os.scandir(folder):
        if not OURS.fullmatch(file.name) or not file.is_file(follow_symlinks=False):
            continue
        try:
            stat = file.stat(follow_symlinks=False)
        except FileNotFoundError:  # another rank made room
            continue
        files.append((stat.st_mtime_ns, stat.st_size, file.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            return
        Path(path).unlink(missing_ok=True)
        total -= size
