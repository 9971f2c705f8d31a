"""Annotations in seconds on the clock of their video: what a header says, which frames a span becomes."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import decord
import numpy as np
import odd_videos as odd
import pytest
from PIL import Image

from configs.data import DataConfig
from configs.sources import JsonlSource
from data.annotations import AnnotationError, FieldError
from data.probing import VideoInfo, disagreement, frames_per_second, on_clock_of, probe_samples, probe_video
from data.sources import load_samples
from data.sources.jsonl import write_samples
from data.types import TICKS_PER_SEC, FrameSpan, GroundingSample
from data.video import VideoDecodeError, write_video

WIDTH, HEIGHT, NUM_FRAMES = 64, 48, 40


def make_video(path: Path, *, num_frames: int = NUM_FRAMES, fps: float = 8.0) -> Path:
    frames = [np.full((HEIGHT, WIDTH, 3), 20 + t, dtype=np.uint8) for t in range(num_frames)]
    write_video(path, frames, fps=fps, width=WIDTH, height=HEIGHT)
    return path


def in_seconds(path: Path | str, start_sec: float, end_sec: float, *, duration_sec: float = 5.0) -> GroundingSample:
    """As a source annotated in seconds gives it: milliseconds, no size."""
    return GroundingSample(
        sample_id=f"{start_sec}-{end_sec}",
        task="temporal",
        query="a person opens a door",
        video_path=str(path),
        fps=TICKS_PER_SEC,
        width=0,
        height=0,
        clip=FrameSpan(0, round(duration_sec * TICKS_PER_SEC)),
        span=FrameSpan(round(start_sec * TICKS_PER_SEC), round(end_sec * TICKS_PER_SEC)),
        windows_sec=((start_sec, end_sec),),
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [8.0, 23.976, 29.97])
def test_a_header_gives_size_rate_and_length(tmp_path: Path, suffix: str, fps: float) -> None:
    """Matroska holds no frame count and rounds times to a millisecond; decord counts the same frames."""
    path = make_video(tmp_path / f"v.{suffix}", fps=fps)
    info = probe_video(path)
    assert (info.width, info.height, info.num_frames, info.rotation_deg) == (WIDTH, HEIGHT, NUM_FRAMES, 0)
    assert info.fps == pytest.approx(fps, rel=1e-6)
    assert info.duration_sec == pytest.approx(NUM_FRAMES / fps, rel=1e-6)
    assert info.num_frames == len(decord.VideoReader(str(path)))


def shifted(path: Path) -> Path:
    """Its first 1.5 s = 12 frames are hidden by an edit list."""
    return odd.copy_packets(odd.plain(path.with_name("whole.mp4")), path, skip_sec=1.5)


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("uneven.mp4", lambda path: odd.encode(path, times_ms=odd.UNEVEN_MS), (3.6, 10, 64, 48, 0)),
        ("uneven.mkv", lambda path: odd.encode(path, times_ms=odd.UNEVEN_MS), (3.6, 10, 64, 48, 0)),
        ("late.mkv", lambda path: odd.encode(path, times_ms=range(1000, 6000, 125)), (8.0, 40, 64, 48, 0)),
        ("hidden.mp4", shifted, (8.0, 28, 64, 48, 0)),
        ("wrong_count.avi", odd.wrong_count, (8.0, 40, 64, 48, 0)),
        ("turned.mp4", lambda path: odd.turned(path, 90), (8.0, 40, 48, 64, -90)),
        ("half_turned.mp4", lambda path: odd.turned(path, 180), (8.0, 40, 64, 48, -180)),
        ("titled.mkv", lambda path: odd.titled(path, b"caf\xe9"), (8.0, 40, 64, 48, 0)),
        ("av1.mp4", lambda path: odd.encode(path, codec="libsvtav1"), (8.0, 40, 64, 48, 0)),
    ],
)
def test_odd_videos(tmp_path: Path, name: str, make: odd.Make, expected: tuple[float, int, int, int, int]) -> None:
    """Rate, frames, width and height as shown, rotation. Uneven: 9 steps of 10 frames in 2.5 s."""
    info = probe_video(make(tmp_path / name))
    assert (info.fps, info.num_frames, info.width, info.height, info.rotation_deg) == expected


def test_a_video_of_one_frame_and_an_image(tmp_path: Path) -> None:
    """The image lies on its side: orientation 6 turns its 30 x 20 pixels by a quarter."""
    assert probe_video(make_video(tmp_path / "v.mp4", num_frames=1)).num_frames == 1
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "side.jpg", exif=exif)
    Image.new("RGB", (30, 20)).save(tmp_path / "up.png")
    assert probe_video(tmp_path / "side.jpg") == VideoInfo(fps=1.0, num_frames=1, width=20, height=30)
    assert probe_video(tmp_path / "up.png") == VideoInfo(fps=1.0, num_frames=1, width=30, height=20)


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "Invalid data"),
        ("text.mp4", b"not a video\n" * 50, "Invalid data"),
        ("text.jpg", b"not an image", "PIL: cannot identify"),
        (
            "sound.wav",
            b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\4\0\0\0abcd",
            "no video",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_cause(tmp_path: Path, name: str, content: bytes | None, cause: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoDecodeError, match=cause) as caught:
        probe_video(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize(
    ("num_frames", "elapsed_sec", "header_rate", "expected"),
    [
        (9, Fraction(1), 8, 8),  # 8 steps in a second
        (9, Fraction(1001, 1000), 8, 8),  # a millisecond off is rounding
        (9, Fraction(2), 8, 4),  # the header is wrong
        (9, Fraction(2), None, 4),  # or silent
        (1, Fraction(0), 25, 25),  # one frame takes no time
        (9, Fraction(0), 25, 25),  # no presentation times
        (9, Fraction(0), None, None),
    ],
)
def test_the_rate_fits_the_times(
    num_frames: int, elapsed_sec: Fraction, header_rate: int | None, expected: int | None
) -> None:
    rate = None if header_rate is None else Fraction(header_rate)
    assert frames_per_second(num_frames, elapsed_sec, header_rate=rate, tick_sec=Fraction(1, 1000)) == expected


@pytest.mark.parametrize(
    ("start_sec", "end_sec", "expected"),
    [
        (1.0, 2.0, (8, 16)),  # 8 frames a second
        (1.05, 1.99, (8, 16)),  # 8.4 and 15.92 frames
        (1.0, 1.01, (8, 9)),  # at least one frame
        (4.95, 5.0, (39, 40)),  # rounds to frame 40, which is not there
        (4.0, 5.0, (32, 40)),
    ],
)
def test_a_span_in_seconds_becomes_the_nearest_frames(
    start_sec: float, end_sec: float, expected: tuple[int, int]
) -> None:
    """Of a file of 5 s, 40 frames; what was annotated stays as it is."""
    sample = in_seconds("v.mp4", start_sec, end_sec)
    probed = on_clock_of(sample, VideoInfo(fps=8.0, num_frames=40, width=64, height=48))
    assert probed.span == FrameSpan(*expected) and probed.clip == FrameSpan(0, 40)
    assert (probed.fps, probed.width, probed.height, probed.is_probed) == (8.0, 64, 48, True)
    assert probed.windows_sec == ((start_sec, end_sec),)


def test_a_span_of_a_longer_video_is_cut_or_refused() -> None:
    """The file has 3 of the 5 s: a span that reaches past its end is cut, one that begins there is an error."""
    info = VideoInfo(fps=8.0, num_frames=24, width=64, height=48)
    assert on_clock_of(in_seconds("v.mp4", 2.0, 4.0), info).span == FrameSpan(16, 24)
    with pytest.raises(FieldError, match=r"field span: begins at 3\.500 s, the file ends at 3\.000 s"):
        on_clock_of(in_seconds("v.mp4", 3.5, 4.0), info)


def test_a_question_without_a_span_is_probed_too() -> None:
    sample = dataclasses.replace(in_seconds("v.mp4", 1.0, 2.0), span=None)
    probed = on_clock_of(sample, VideoInfo(fps=8.0, num_frames=24, width=64, height=48))
    assert probed.span is None and probed.clip == FrameSpan(0, 24)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (VideoInfo(8.0, 40, 64, 48), None),
        (VideoInfo(8.0, 50, 64, 48), None),
        (VideoInfo(8.0, 39, 64, 48), "the file has 39 frames, the annotation asks for frame 39"),
        (VideoInfo(8.0, 40, 48, 64), "the file is 48 x 64, the annotation says 64 x 48"),
    ],
)
def test_a_file_that_is_not_the_annotated_one(info: VideoInfo, expected: str | None) -> None:
    sample = on_clock_of(in_seconds("v.mp4", 1.0, 2.0), VideoInfo(8.0, 40, 64, 48))
    assert disagreement(sample, info) == expected


def test_samples_are_probed_in_order_and_bad_ones_named(tmp_path: Path) -> None:
    """Two samples of one video, one of a missing one, one that needs no probing."""
    path = make_video(tmp_path / "v.mp4")
    first, second, missing = (in_seconds(path, 0, 1), in_seconds(path, 1, 2), in_seconds(tmp_path / "none.mp4", 2, 3))
    info = VideoInfo(fps=8.0, num_frames=NUM_FRAMES, width=WIDTH, height=HEIGHT)
    known = dataclasses.replace(on_clock_of(first, info), sample_id="known", video_path="not looked at.mp4")
    samples, errors = probe_samples([first, missing, known, second])
    assert samples == [on_clock_of(first, info), known, on_clock_of(second, info)]
    (error,) = errors
    assert str(error) == f"{tmp_path / 'none.mp4'}, sample '2-3', field video_path: no such file"


def test_load_samples_looks_at_videos(tmp_path: Path) -> None:
    """In milliseconds in the file, in frames when loaded; a missing video ends the run, or is left out."""
    path = make_video(tmp_path / "v.mp4")
    write_samples(tmp_path / "train.jsonl", [in_seconds(path, 1, 2), in_seconds(tmp_path / "none.mp4", 2, 3)])
    config = DataConfig(source=JsonlSource(root=str(tmp_path)), tasks={"temporal": 1.0})
    with pytest.raises(AnnotationError, match=r"none\.mp4, sample '2-3', field video_path: no such file"):
        load_samples(config, "train")
    (sample,) = load_samples(config.model_copy(update={"bad_records": "skip"}), "train")
    assert sample.span == FrameSpan(8, 16) and sample.clip == FrameSpan(0, NUM_FRAMES)
    assert [sample.is_probed for sample in load_samples(config, "train", probe=False)] == [False, False]
