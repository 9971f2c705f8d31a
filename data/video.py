"""Reading clips of video files (and images) as a config says, and writing videos.

decoder (data/video_decoders.py) -> in a killable process (data/video_process.py) -> kept on disk (data/video_cache.py).
A file that cannot be read is a VideoDecodeError that names it; nothing is substituted, and no reader stands in for
another one.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from configs.video import VideoConfig
from data.types import DecodedClip, FrameSpan
from data.video_cache import DiskCache
from data.video_decoders import READERS, VideoReader
from data.video_frames import VideoDecodeError
from data.video_process import shared_reader

__all__ = ["READERS", "VideoDecodeError", "VideoReader", "open_reader", "read_clip", "write_video"]

MAX_DRIFT_SEC, MAX_DRIFT_FRAMES = 0.1, 0.5
"""How far a frame may be shown from its number / fps, the larger of the two (our choice): clocks of 1 ms, a rounded rate
and single late frames stay below."""
# mbtree makes the encoder's output differ from run to run on small frames.
X264 = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}


def open_reader(video: VideoConfig) -> VideoReader:
    """The reader that a config asks for."""
    read = READERS[video.decoder] if video.timeout_sec is None else shared_reader(video.decoder, video.timeout_sec)
    if not video.decode_cache:
        return read
    return DiskCache(read, Path(video.decode_cache), max_gib=video.decode_cache_gib, decoder=video.decoder)


def read_clip(
    path: Path | str,
    clip: FrameSpan,
    frame_idx_T: np.ndarray,
    *,
    fps: float,
    read: VideoReader,
    variable_frame_rate: Literal["error", "accept"] = "error",
) -> DecodedClip:
    """The frames of a clip at absolute indices, the first of them (of `sample_frames`: the clip's first) at its frame
    number / fps, the others at their presentation times after it.

    Raises VideoDecodeError, by default also where these times are not those of a constant rate.
    """
    frames_THW3, times_sec_T = read(Path(path), frame_idx_T)
    even_sec_T = (frame_idx_T - clip.start) / fps
    times_sec_T = times_sec_T - (times_sec_T[0] - even_sec_T[0])
    if variable_frame_rate == "error":
        _check_rate(path, times_sec_T - even_sec_T, fps)
    return DecodedClip(frames_THW3, frame_idx_T, times_sec_T)


def _check_rate(path: Path | str, drift_sec_T: np.ndarray, fps: float) -> None:
    largest_sec = float(np.abs(drift_sec_T).max())
    if largest_sec > max(MAX_DRIFT_SEC, MAX_DRIFT_FRAMES / fps):
        raise VideoDecodeError(
            path,
            f"variable frame rate, or another one than annotated: frames are shown up to {largest_sec:.2f} s away from "
            f"frame number / {fps:g} fps. Re-encode at a constant rate, for example ffmpeg -fps_mode cfr -r {fps:g}, or "
            "set data.video.variable_frame_rate=accept",
        )


def write_video(path: Path, frames: Iterable[np.ndarray], *, fps: float, width: int, height: int) -> None:
    """Encode uint8 RGB frames [height, width, 3] as H.264."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=X264)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
