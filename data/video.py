"""Reading frames of a video file (one interface, decord or PyAV by config, never one in place of the other); writing.

decord opens inside the process that reads (dmlc/decord#294). A file that cannot be read is a VideoDecodeError that
names it; nothing is substituted.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from data.frame_sampling import sample_frames
from data.types import DecodedClip, FrameSpan

# mbtree makes the encoder's output differ from run to run on small frames.
X264 = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0"}


class VideoDecodeError(RuntimeError):
    """A video could not be read; the message names the file and the cause."""

    def __init__(self, path: Path | str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = str(path), cause

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}"


class VideoReader(Protocol):
    """Frames of one file by index, with presentation times."""

    def __call__(self, path: Path, frame_idx_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-> frames_THW3 uint8 RGB, times_sec_T from the start of the file. Raises VideoDecodeError."""
        ...


def read_decord(path: Path, frame_idx_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """decord 0.6."""
    import decord

    try:
        # A file that it cannot open is a plain RuntimeError, everything later a DECORDError.
        reader = decord.VideoReader(str(path), num_threads=1)
    except (decord.DECORDError, RuntimeError) as error:
        raise VideoDecodeError(path, f"decord: {str(error).strip().splitlines()[0]}") from error
    _check_length(path, len(reader), frame_idx_T)
    try:
        frames = reader.get_batch(frame_idx_T.tolist()).asnumpy()
        return frames, np.asarray(reader.get_frame_timestamp(frame_idx_T.tolist()))[:, 0]
    except decord.DECORDError as error:
        raise VideoDecodeError(path, f"decord: {str(error).strip().splitlines()[0]}") from error


def read_pyav(path: Path, frame_idx_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PyAV, decoding from the start up to the last frame asked for."""
    import av

    wanted = {int(index) for index in frame_idx_T}
    found: dict[int, tuple[np.ndarray, float]] = {}
    index = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoDecodeError(path, "PyAV: no video stream")
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    found[index] = frame.to_ndarray(format="rgb24"), float(frame.time)
                if len(found) == len(wanted):
                    break
    except av.FFmpegError as error:
        raise VideoDecodeError(path, f"PyAV: {error}") from error
    if len(found) < len(wanted):
        _check_length(path, index + 1, frame_idx_T)
    frames, times = zip(*(found[int(index)] for index in frame_idx_T), strict=True)
    return np.stack(frames), np.array(times)


def _check_length(path: Path, num_frames: int, frame_idx_T: np.ndarray) -> None:
    if len(frame_idx_T) and frame_idx_T.max() >= num_frames:
        raise VideoDecodeError(path, f"the annotation asks for frame {frame_idx_T.max()}, the file has {num_frames}")


READERS: dict[str, VideoReader] = {"decord": read_decord, "pyav": read_pyav}


def read_clip(
    path: Path | str, clip: FrameSpan, *, fps: float, sample_fps: float, max_frames: int, decoder: str
) -> DecodedClip:
    """Sample and decode the frames of a clip. Raises VideoDecodeError."""
    path = Path(path)
    if not path.is_file():
        raise VideoDecodeError(path, "no such file")
    frame_idx_T = sample_frames(clip, fps=fps, sample_fps=sample_fps, max_frames=max_frames)
    frames_THW3, times_sec_T = READERS[decoder](path, frame_idx_T)
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
