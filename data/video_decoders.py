"""The two video decoders behind one interface, and images as clips of one frame. numpy, decord, PyAV and PIL only.

Pixels of the two are equal bit for bit (benchmarks/video.py). decord returns wrong frames for some files without a word
(below); such a file is an error that says so, and PyAV reads it.
"""

import re
from collections.abc import Iterator
from itertools import chain, dropwhile, takewhile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data.video_frames import (
    Frames,
    FrameTable,
    VideoDecodeError,
    check_indices,
    check_readable,
    open_container,
    read_table,
    video_stream,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DECORD_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
"""Containers in which decord 0.6 seeks to the right frame."""
USE_PYAV = "decoder pyav reads this file"
SKIPS_EXACTLY = ("h264",)
"""Codecs of which FFmpeg skips frames that no other one refers to, and decodes the others as ever."""


class VideoReader(Protocol):
    """Frames of one file by index, with presentation times."""

    def __call__(self, path: Path, frame_idx_T: np.ndarray) -> Frames:
        """-> frames_THW3 uint8 RGB as displayed, times_sec_T from the file's first frame. Raises VideoDecodeError."""
        ...


def read_decord(path: Path, frame_idx_T: np.ndarray) -> Frames:
    """decord 0.6, frame by frame, which is as fast as its get_batch."""
    import decord

    table = _decord_table(path)
    check_indices(path, len(table), frame_idx_T)
    try:
        # A file that it cannot open is a plain RuntimeError, everything later a DECORDError.
        reader = decord.VideoReader(str(path), num_threads=1)
        count = len(reader)
        frames = [reader[int(index)].asnumpy() for index in frame_idx_T if count == len(table)]
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoDecodeError(path, f"decord: {_first_line(error)}") from error
    if count != len(table):
        raise VideoDecodeError(path, f"decord: finds {count} frames, the file has {len(table)}")
    if frames[0].shape[2] != 3:
        raise VideoDecodeError(path, f"decord: cannot turn a video on its side; {USE_PYAV}")
    return np.stack(frames), table.times_sec_F[frame_idx_T]


def _decord_table(path: Path) -> FrameTable:
    """The frames of a file, which must be of a kind that decord reads rightly. Raises VideoDecodeError."""
    import av

    try:
        with open_container(path) as container:
            name, table = container.format.name, read_table(path, container, video_stream(path, container))
    except av.FFmpegError as error:
        raise VideoDecodeError(path, f"decord: {error.strerror}") from error
    if table is None:
        raise VideoDecodeError(path, f"decord: presentation times are missing; {USE_PYAV}")
    if name not in DECORD_FORMATS:
        raise VideoDecodeError(path, f"decord: finds wrong frames in {name} files; {USE_PYAV}")
    if table.has_hidden:
        raise VideoDecodeError(path, f"decord: counts frames that an edit list hides; {USE_PYAV}")
    if table.has_open_gop or (table.key_dts_K[1:] <= table.key_pts_K[:-1]).any():
        raise VideoDecodeError(path, f"decord: seeks wrongly in open GOPs and between close keyframes; {USE_PYAV}")
    return table


def read_pyav(path: Path, frame_idx_T: np.ndarray) -> Frames:
    """PyAV, decoding from the keyframe before each frame that is asked for."""
    import av

    try:
        with open_container(path) as container:
            stream = video_stream(path, container)
            table = read_table(path, container, stream)
            if table is None:
                return _read_from_start(path, container, stream, frame_idx_T)
            check_indices(path, len(table), frame_idx_T)
            return _read_by_keyframe(path, container, stream, table, frame_idx_T)
    except av.FFmpegError as error:
        raise VideoDecodeError(path, f"PyAV: {error.strerror}") from error


def _read_by_keyframe(path: Path, container: Any, stream: Any, table: FrameTable, frame_idx_T: np.ndarray) -> Frames:
    groups: dict[int, set[int]] = {}
    for pts in table.pts_F[np.unique(frame_idx_T)].tolist():
        groups.setdefault(table.key_before(pts), set()).add(pts)
    found = {
        frame.pts: _displayed(path, frame)
        for key_pts, wanted in groups.items()
        for frame in _decode_group(container, stream, key_pts, wanted)
    }
    for index in frame_idx_T.tolist():
        if int(table.pts_F[index]) not in found:
            raise VideoDecodeError(path, f"PyAV: frame {index} cannot be decoded")
    frames = [found[int(pts)] for pts in table.pts_F[frame_idx_T]]
    return _stack(path, frames), table.times_sec_F[frame_idx_T]


def _decode_group(container: Any, stream: Any, key_pts: int, wanted: set[int]) -> Iterator[Any]:
    """The frames at `wanted`, which all depend on one keyframe, and damaged ones, on which they may depend.

    Frames that no other one refers to are not decoded unless they are wanted.
    """
    codec, missing = stream.codec_context, set(wanted)

    def decode(packet: Any) -> Iterator[Any]:
        for frame in codec.decode(packet):
            if frame.pts in wanted or (frame.is_corrupt and frame.pts > key_pts):
                yield frame

    for packet in _packets_from(container, stream, key_pts):
        if codec.name in SKIPS_EXACTLY:
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        missing.discard(packet.pts)
        yield from decode(packet)
        if not missing:
            break
    yield from decode(None)


def _packets_from(container: Any, stream: Any, key_pts: int) -> Iterator[Any]:
    """Packets from a keyframe on; where a seek lands behind it, from the start of the file up to it."""
    for target in (key_pts, min(stream.start_time or 0, key_pts) - 2**40):
        container.seek(target, stream=stream)
        packets = takewhile(lambda packet: packet.size, container.demux(stream))
        packets = dropwhile(lambda packet: packet.pts != key_pts, packets)
        first = next(packets, None)
        if first is not None:
            return chain([first], packets)
    return iter(())


def _read_from_start(path: Path, container: Any, stream: Any, frame_idx_T: np.ndarray) -> Frames:
    """Frames counted as they are decoded, times from the frame rate: for files without presentation times."""
    if not stream.average_rate:
        raise VideoDecodeError(path, "PyAV: neither presentation times nor a frame rate")
    check_indices(path, int(frame_idx_T.max(initial=-1)) + 1, frame_idx_T)
    wanted, found, count = set(frame_idx_T.tolist()), {}, 0
    container.seek(0, stream=stream)
    for count, frame in enumerate(container.decode(stream), start=1):
        if count - 1 in wanted:
            found[count - 1] = _displayed(path, frame)
        if len(found) == len(wanted):
            break
    if len(found) < len(wanted):
        check_indices(path, count, frame_idx_T)
    return _stack(path, [found[index] for index in frame_idx_T.tolist()]), frame_idx_T / float(stream.average_rate)


def _displayed(path: Path, frame: Any) -> np.ndarray:
    """RGB turned as a player shows it. Raises VideoDecodeError for a frame that the decoder had to patch up."""
    if frame.is_corrupt:
        raise VideoDecodeError(path, f"PyAV: the frame at {frame.time} s is damaged")
    if frame.rotation % 90:
        raise VideoDecodeError(path, f"PyAV: expected a rotation by a multiple of 90 degrees, got {frame.rotation}")
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _stack(path: Path, frames: list[np.ndarray]) -> np.ndarray:
    sizes = {frame.shape[1::-1] for frame in frames}
    if len(sizes) > 1:
        raise VideoDecodeError(path, f"the frame size changes: {sorted(sizes)}")
    return np.stack(frames)


def read_image(path: Path, frame_idx_T: np.ndarray) -> Frames:
    """An image as the only frame, frame 0 at 0 s, of a file; turned as its EXIF says."""
    from PIL import Image, ImageOps

    check_indices(path, 1, frame_idx_T)
    try:
        with Image.open(path) as image:
            frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoDecodeError(path, f"PIL: {_first_line(error)}") from error
    return np.stack([frame] * len(frame_idx_T)), np.zeros(len(frame_idx_T))


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or repr(error)).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+: ", "", line)  # decord's clock and source line


def _or_image(read_video: VideoReader) -> VideoReader:
    def read(path: Path, frame_idx_T: np.ndarray) -> Frames:
        path = Path(path)
        check_readable(path)
        return (read_image if path.suffix.lower() in IMAGE_SUFFIXES else read_video)(path, np.asarray(frame_idx_T))

    return read


READERS: dict[str, VideoReader] = {"decord": _or_image(read_decord), "pyav": _or_image(read_pyav)}
"""In this process, without a limit of time."""
