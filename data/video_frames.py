"""Which frames a video file holds and when each is shown, read from its packets without decoding them.

Index i is the i-th frame in presentation order, at 0 s for the first. What an edit list hides has no index. Both
readers take indices and times from here, so they cannot disagree about them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Frames = tuple[np.ndarray, np.ndarray]
"""frames_THW3 uint8 RGB, times_sec_T from the first frame of the file."""


class VideoDecodeError(RuntimeError):
    """A video could not be read; the message names the file and the cause."""

    def __init__(self, path: Path | str, cause: str) -> None:
        super().__init__(str(path), cause)
        self.path, self.cause = str(path), cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


@dataclass(frozen=True)
class FrameTable:
    """F frames in presentation order; P packets and their K keyframes in decoding order. Times in ticks (pts, dts).

    key_pts_K, key_dts_K: where decoding can start, also keyframes that an edit list hides. has_hidden: some packets are
    decoded and not shown. has_open_gop: some frames after a keyframe are shown before it, and need the one before.
    """

    pts_F: np.ndarray
    times_sec_F: np.ndarray
    key_pts_K: np.ndarray
    key_dts_K: np.ndarray
    has_hidden: bool
    has_open_gop: bool

    def __len__(self) -> int:
        return len(self.pts_F)

    def key_before(self, pts: int) -> int:
        """The keyframe from which the frame at `pts` is decoded."""
        return int(self.key_pts_K[self.key_pts_K <= pts].max(initial=self.key_pts_K.min()))


def check_readable(path: Path) -> None:
    """Raises VideoDecodeError unless `path` is a file that can be opened."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise VideoDecodeError(path, "no such file") from None
    except OSError as error:
        raise VideoDecodeError(path, (error.strerror or str(error)).lower()) from None


def check_indices(path: Path, num_frames: int, frame_idx_T: np.ndarray) -> None:
    """Raises VideoDecodeError for an index that the file does not have."""
    if len(frame_idx_T) == 0 or frame_idx_T.min() < 0:
        raise VideoDecodeError(path, f"expected frame indices of at least 0, got {frame_idx_T.tolist()}")
    if frame_idx_T.max() >= num_frames:
        raise VideoDecodeError(path, f"the annotation asks for frame {frame_idx_T.max()}, the file has {num_frames}")


def open_container(path: Path) -> Any:
    """An open PyAV container, to be used in `with`; titles and the like may be in any encoding. Raises av.FFmpegError."""
    import av

    return av.open(str(path), metadata_errors="replace")


def video_stream(path: Path, container: Any) -> Any:
    """The video stream of an open PyAV container, decoded on one thread. Raises VideoDecodeError."""
    stream = container.streams.best("video")
    if stream is None:
        raise VideoDecodeError(path, "no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(path, "no decoder for its video stream")
    stream.thread_count = 1
    return stream


def read_table(path: Path, container: Any, stream: Any) -> FrameTable | None:
    """The frames of an open PyAV container, or None where its packets do not tell: AVI holds no presentation times.

    Leaves the container at its end. Raises VideoDecodeError.
    """
    codec = stream.codec_context.name
    packets = [
        (packet.pts, packet.pts if packet.dts is None else packet.dts, packet.is_keyframe, _is_hidden(packet, codec))
        for packet in container.demux(stream)
        if packet.size
    ]
    if not packets:
        raise VideoDecodeError(path, "no frames in its video stream")
    if container.format.name == "avi" or any(packet[0] is None for packet in packets):
        return None
    pts_P, dts_P, is_key_P, is_hidden_P = (np.array(column) for column in zip(*packets, strict=True))
    if len(np.unique(pts_P)) < len(pts_P) or is_hidden_P.all() or not is_key_P.any():
        return None
    shown_F = np.sort(pts_P[~is_hidden_P])
    last_key_P = np.maximum.accumulate(np.where(is_key_P, pts_P, pts_P.min()))
    return FrameTable(
        pts_F=shown_F,
        times_sec_F=(shown_F - shown_F[0]) * float(stream.time_base),
        key_pts_K=pts_P[is_key_P],
        key_dts_K=dts_P[is_key_P],
        has_hidden=bool(is_hidden_P.any()),
        has_open_gop=bool((pts_P < last_key_P).any()),
    )


def _is_hidden(packet: Any, codec: str) -> bool:
    # A VP8 frame says in bit 4 of its first byte whether it is shown (RFC 6386, section 9.1).
    return packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & 0x10)
