"""What a video file says about itself, and samples annotated in seconds put on its own clock.

Which frame count is trusted: the frames that data/video_frames.py lists from the packets of the file, which is what
both decoders index by; the count in the container's header is absent from Matroska and may be wrong anywhere. The frame
rate is the header's where it fits the packets' times, else frames per second of these.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.annotations import AnnotationError, FieldError
from data.types import FrameSpan, GroundingSample
from data.video_decoders import IMAGE_SUFFIXES
from data.video_frames import VideoDecodeError, check_readable, read_table, video_stream

OPEN_SEC, READ_SEC = 10.0, 60.0
"""Longest that FFmpeg may wait for a file to be opened, and for a part of it."""
EXIF_ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class VideoInfo:
    """width and height as displayed (rotation applied), the frames of the file and their rate. An image is one frame at
    1 fps."""

    fps: float
    num_frames: int
    width: int
    height: int
    rotation_deg: int = 0

    @property
    def duration_sec(self) -> float:
        return self.num_frames / self.fps


def probe_video(path: Path | str) -> VideoInfo:
    """Read the packets and the first frame of a video, the header of an image. Raises VideoDecodeError."""
    path = Path(path)
    check_readable(path)
    return _probe_image(path) if path.suffix.lower() in IMAGE_SUFFIXES else _probe_stream(path)


def _probe_image(path: Path) -> VideoInfo:
    from PIL import Image

    try:
        with Image.open(path) as image:
            size = image.size[::-1] if image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoDecodeError(path, f"PIL: {error}") from error
    return VideoInfo(fps=1.0, num_frames=1, width=size[0], height=size[1])


def _probe_stream(path: Path) -> VideoInfo:
    import av

    try:
        with av.open(str(path), timeout=(OPEN_SEC, READ_SEC), metadata_errors="replace") as container:
            stream = video_stream(path, container)
            num_frames, elapsed_ticks = _length(path, container, stream)
            container.seek(0, stream=stream)
            first = next(container.decode(stream), None)
    except av.FFmpegError as error:
        raise VideoDecodeError(path, f"PyAV: {error.strerror}") from error
    tick_sec = Fraction(stream.time_base or 0)
    fps = frames_per_second(
        num_frames, elapsed_ticks * tick_sec, header_rate=stream.average_rate or None, tick_sec=tick_sec
    )
    if first is None or not fps:
        raise VideoDecodeError(path, "PyAV: no frame that decodes" if first is None else "PyAV: no frame rate")
    upright = first.rotation % 180 == 0
    width, height = (first.width, first.height) if upright else (first.height, first.width)
    return VideoInfo(float(fps), num_frames, width, height, int(first.rotation))


def _length(path: Path, container: Any, stream: Any) -> tuple[int, int]:
    """-> frames, ticks from the first to the last one; 0 ticks where the file has no presentation times."""
    table = read_table(path, container, stream)
    if table is not None:
        return len(table), int(table.pts_F[-1] - table.pts_F[0])
    container.seek(0, stream=stream)
    return sum(packet.size > 0 for packet in container.demux(stream)), 0


def frames_per_second(
    num_frames: int, elapsed_sec: Fraction, *, header_rate: Fraction | None, tick_sec: Fraction
) -> Fraction | None:
    """The header's rate if all frames but the last take `elapsed_sec` at it, to a tick (Matroska rounds to 1 ms); the
    rate that they do take otherwise. None where the file has neither rate nor times."""
    if num_frames < 2 or not elapsed_sec:
        return header_rate
    if header_rate and abs((num_frames - 1) / header_rate - elapsed_sec) <= tick_sec:
        return header_rate
    return (num_frames - 1) / elapsed_sec


def on_clock_of(sample: GroundingSample, info: VideoInfo) -> GroundingSample:
    """The sample in frames and pixels of its file: the clip is the whole file, `windows_sec` stay as annotated.

    Span ends go to the nearest frame, stay inside of the file and at least one frame apart. Raises FieldError for a
    span that begins after the file's end.
    """
    span = None if sample.span is None else _span_on_clock(sample.span, sample.fps, info)
    clip = FrameSpan(0, info.num_frames)
    return replace(sample, fps=info.fps, width=info.width, height=info.height, clip=clip, span=span)


def _span_on_clock(span: FrameSpan, fps: float, info: VideoInfo) -> FrameSpan:
    start, end = (round(tick / fps * info.fps) for tick in (span.start, span.end))
    if span.start / fps >= info.duration_sec:
        raise FieldError("span", f"begins at {span.start / fps:.3f} s, the file ends at {info.duration_sec:.3f} s")
    start = min(start, info.num_frames - 1)
    return FrameSpan(start, min(max(end, start + 1), info.num_frames))


def disagreement(sample: GroundingSample, info: VideoInfo) -> str | None:
    """How the file differs from what a probed sample says of its size and length, or None."""
    if (info.width, info.height) != (sample.width, sample.height):
        return f"the file is {info.width} x {info.height}, the annotation says {sample.width} x {sample.height}"
    if info.num_frames < sample.clip.end:
        return f"the file has {info.num_frames} frames, the annotation asks for frame {sample.clip.end - 1}"
    return None


def probe_samples(
    samples: Sequence[GroundingSample], *, num_threads: int = 4
) -> tuple[list[GroundingSample], list[AnnotationError]]:
    """Put unprobed samples on the clock of their files; probed ones are left as they are.

    -> samples that can be read, in order, and one error for each that cannot: the file is missing or damaged, or its
    span begins after the end. Every file is read through once; `python -m data.prepare --videos` does so ahead of a
    run and keeps the result.
    """
    paths = list(dict.fromkeys(sample.video_path for sample in samples if not sample.is_probed))
    with ThreadPoolExecutor(num_threads) as pool:
        looks = tqdm(pool.map(_probe_or_error, paths), total=len(paths), desc="probe", unit="video", disable=not paths)
        found = dict(zip(paths, looks, strict=True))
    kept: list[GroundingSample] = []
    errors: list[AnnotationError] = []
    for sample in samples:
        try:
            kept.append(sample if sample.is_probed else _on_clock_or_error(sample, found[sample.video_path]))
        except FieldError as error:
            name = f"sample {sample.sample_id!r}"
            errors.append(AnnotationError(sample.video_path, error.cause, record=name, field=error.field))
    return kept, errors


def _on_clock_or_error(sample: GroundingSample, found: VideoInfo | VideoDecodeError) -> GroundingSample:
    if isinstance(found, VideoDecodeError):
        raise FieldError("video_path", found.cause)
    return on_clock_of(sample, found)


def _probe_or_error(path: str) -> VideoInfo | VideoDecodeError:
    try:
        return probe_video(path)
    except VideoDecodeError as error:
        return error
