"""Reading clips of video files (and images) as a config says, and writing videos.

decoder (data/video_decoders.py) -> in a killable process (data/video_process.py) -> kept on disk (data/video_cache.py).
A file that cannot be read is a VideoDecodeError that names it; nothing is substituted, and no reader stands in for
another one.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from configs.video import VideoConfig
from data.types import DecodedClip, FrameSpan
from data.video_cache import DiskCache
from data.video_decoders import READERS, VideoReader
from data.video_frames import VideoDecodeError
from data.video_process import shared_reader

__all__ = ["READERS", "VideoDecodeError", "VideoReader", "open_reader", "read_clip", "write_video"]

# mbtree makes the encoder's output differ from run to run on small frames.
X264 = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}


def open_reader(video: VideoConfig) -> VideoReader:
    """The reader that a config asks for."""
    read = READERS[video.decoder] if video.timeout_sec is None else shared_reader(video.decoder, video.timeout_sec)
    if not video.decode_cache:
        return read
    return DiskCache(read, Path(video.decode_cache), max_gib=video.decode_cache_gib, decoder=video.decoder)


def read_clip(
    path: Path | str, clip: FrameSpan, frame_idx_T: np.ndarray, *, fps: float, read: VideoReader
) -> DecodedClip:
    """The frames of a clip at absolute indices. Raises VideoDecodeError."""
    frames_THW3, times_sec_T = read(Path(path), frame_idx_T)
    return DecodedClip(frames_THW3, frame_idx_T, times_sec_T - clip.start / fps)


def write_video(path: Path, frames: Iterable[np.ndarray], *, fps: float, width: int, height: int) -> None:
    """Encode uint8 RGB frames [height, width, 3] as H.264."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=X264)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
