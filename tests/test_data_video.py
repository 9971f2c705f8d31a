"""Reading real files: two decoders that agree, times that are exact, and errors that name the file."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd_videos as odd
import pytest
import torch
from tiny import Tiny

from data.dataset import PromptEncoder
from data.types import DecodedClip, FrameSpan
from data.video import READERS, VideoDecodeError, read_clip, write_video

DECODERS = sorted(READERS)
WIDTH, HEIGHT, NUM_FRAMES = 64, 48, 40
WHOLE = FrameSpan(0, NUM_FRAMES)


def grey_ramp(num_frames: int) -> Iterator[np.ndarray]:
    """Frame t is all grey of level 20 + 5 t, so a decoded frame tells its own index."""
    for t in range(num_frames):
        yield np.full((HEIGHT, WIDTH, 3), 20 + 5 * t, dtype=np.uint8)


def make_video(path: Path, *, fps: float = 8.0) -> Path:
    write_video(path, grey_ramp(NUM_FRAMES), fps=fps, width=WIDTH, height=HEIGHT)
    return path


def read_all(path: Path, decoder: str, *, clip: FrameSpan = WHOLE, fps: float = 8.0) -> DecodedClip:
    """Every frame of a clip."""
    return read_clip(path, clip, np.arange(clip.start, clip.end), fps=fps, read=READERS[decoder])


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_are_the_ones_asked_for(tmp_path: Path, decoder: str) -> None:
    """The level of grey tells the index: (level - 20) / 5, with half a step of room for the codec."""
    wanted = np.arange(4, 36, 4)
    clip = read_clip(make_video(tmp_path / "v.mp4"), FrameSpan(4, 36), wanted, fps=8.0, read=READERS[decoder])
    assert clip.frames_THW3.shape == (8, HEIGHT, WIDTH, 3) and clip.frames_THW3.dtype == np.uint8
    levels_T = (clip.frames_THW3.mean(axis=(1, 2, 3)) - 20) / 5
    np.testing.assert_allclose(levels_T, wanted, atol=0.5)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fps", [8.0, 23.976, 29.97, 30.0])
def test_times_are_index_over_rate(tmp_path: Path, decoder: str, fps: float) -> None:
    """From the start of the clip: frame 10 of a clip that begins there is at 0 s, frame 11 at 1 / fps."""
    clip = read_all(make_video(tmp_path / "v.mp4", fps=fps), decoder, clip=FrameSpan(10, NUM_FRAMES), fps=fps)
    np.testing.assert_allclose(clip.times_sec_T, (clip.frame_idx_T - 10) / fps, atol=1e-5)


BURST_MS = [0, 100, 200, 300, 1000, 2000, 3000, 4000]
BURST_FPS = 7 / 4  # what data/probing.py finds


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_variable_rate_is_an_error_that_says_what_to_do(tmp_path: Path, decoder: str) -> None:
    """Frames 4 and 5 are shown at 1 and 2 s; 4 / 1.75 and 5 / 1.75 are 2.29 and 2.86. Furthest is frame 3: 1.71 - 0.3."""
    path = odd.encode(tmp_path / "v.mp4", times_ms=BURST_MS)
    said = r"v\.mp4: variable frame rate.* up to 1\.41 s .* / 1\.75 fps\. .*cfr -r 1\.75.*variable_frame_rate=accept"
    with pytest.raises(VideoDecodeError, match=said):
        read_all(path, decoder, clip=FrameSpan(0, 8), fps=BURST_FPS)
    clip = read_clip(path, FrameSpan(0, 8), np.arange(8), fps=BURST_FPS, read=READERS[decoder],
                     variable_frame_rate="accept")  # fmt: skip
    np.testing.assert_allclose(clip.times_sec_T, np.array(BURST_MS) / 1000, atol=1e-9)


def test_times_are_from_the_first_frame_of_the_clip(tmp_path: Path) -> None:
    """Frames 4, ..., 7 of the burst are a second apart. By the mean rate the clip would begin at 4 / 1.75 = 2.29 s of the
    file, before which frames 4 and 5 are shown."""
    path = odd.encode(tmp_path / "v.mp4", times_ms=BURST_MS)
    clip = read_clip(path, FrameSpan(4, 8), np.arange(4, 8), fps=BURST_FPS, read=READERS["pyav"],
                     variable_frame_rate="accept")  # fmt: skip
    assert clip.times_sec_T.tolist() == [0.0, 1.0, 2.0, 3.0]
    at_its_own_rate = read_all(path, "pyav", clip=FrameSpan(4, 8), fps=1.0)
    assert at_its_own_rate.times_sec_T.tolist() == [0.0, 1.0, 2.0, 3.0]


def jittered_ms(*, offset: int = 0, by: int = 0) -> list[int]:
    """40 frames at 8 a second, each late by up to `by` ms."""
    return (offset + 125 * np.arange(40) + np.random.default_rng(0).integers(0, by + 1, 40)).tolist()


# name of the file, when its frames are shown, annotated rate
EVEN_ENOUGH: list[tuple[str, list[int] | None, float]] = [
    ("plain.mp4", None, 8.0),
    ("starts_late.mp4", jittered_ms(offset=1700), 8.0),
    ("starts_late.mkv", jittered_ms(offset=1700), 8.0),
    ("jitter.mkv", jittered_ms(by=20), 8.0),
    ("one_late_frame.mp4", [*range(0, 1000, 125), *range(1060, 5060, 125)], 8.0),  # 60 ms: about half a frame
    ("rounded_rate.mp4", None, 8.008),  # as 30 for 29.97: after 4.875 s a difference of 5 ms
    ("slow.mp4", [0, 1000, 2400, 3000], 1.0),  # 0.4 s, less than half a frame
]


@pytest.mark.parametrize(("name", "times_ms", "fps"), EVEN_ENOUGH, ids=[row[0] for row in EVEN_ENOUGH])
@pytest.mark.parametrize("start", [0, 1])
def test_ordinary_files_have_a_constant_rate(
    tmp_path: Path, name: str, times_ms: list[int] | None, fps: float, start: int
) -> None:
    """From frame 0 on the times are the file's own, bit for bit."""
    path = odd.encode(tmp_path / name, times_ms=times_ms)
    frame_idx_T = np.arange(start, 40 if times_ms is None else len(times_ms))
    clip = read_clip(path, FrameSpan(start, len(frame_idx_T) + start), frame_idx_T, fps=fps, read=READERS["pyav"])
    _, of_file_sec_T = READERS["pyav"](path, frame_idx_T)
    np.testing.assert_array_equal(clip.times_sec_T, of_file_sec_T - of_file_sec_T[0])


def test_the_config_says_what_a_variable_rate_does(tiny: Tiny, tmp_path: Path) -> None:
    path = odd.encode(tmp_path / "v.mp4", times_ms=BURST_MS, size=(64, 64))
    sample = replace(
        tiny.of_task("temporal")[0], video_path=str(path), fps=BURST_FPS, width=64, height=64,
        clip=FrameSpan(0, 8), span=FrameSpan(4, 6), windows_sec=(),
    )  # fmt: skip
    with pytest.raises(VideoDecodeError, match="variable frame rate"):
        PromptEncoder(tiny.processor, tiny.data)(sample)
    video = tiny.data.video.model_copy(update={"variable_frame_rate": "accept"})
    clip = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))(sample).clip
    np.testing.assert_allclose(clip.times_sec_T, np.array(BURST_MS)[clip.frame_idx_T] / 1000, atol=1e-9)


@pytest.mark.parametrize("fps", [8.0, 29.97])
def test_decoders_agree(tmp_path: Path, fps: float) -> None:
    """Same pixels and times, bit for bit."""
    path = make_video(tmp_path / "v.mp4", fps=fps)
    one, other = (read_all(path, decoder, fps=fps) for decoder in ("decord", "pyav"))
    np.testing.assert_array_equal(one.frames_THW3, other.frames_THW3)
    np.testing.assert_array_equal(one.times_sec_T, other.times_sec_T)


@pytest.mark.parametrize("decoder", DECODERS)
def test_reading_is_repeatable_and_independent_of_other_frames(tmp_path: Path, decoder: str) -> None:
    """A frame is the same whichever others are read with it (seeking must not land elsewhere)."""
    path = make_video(tmp_path / "v.mp4")
    everything, _ = READERS[decoder](path, np.arange(NUM_FRAMES))
    for index in (0, 17, NUM_FRAMES - 1):
        frames, _ = READERS[decoder](path, np.array([index]))
        np.testing.assert_array_equal(frames[0], everything[index])


@pytest.mark.parametrize("decoder", DECODERS)
def test_single_frame_clip(tmp_path: Path, decoder: str) -> None:
    clip = read_all(make_video(tmp_path / "v.mp4"), decoder, clip=FrameSpan(7, 8))
    assert clip.frame_idx_T.tolist() == [7] and clip.times_sec_T.tolist() == [0.0]


@pytest.mark.parametrize("decoder", DECODERS)
def test_missing_file(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "absent.mp4"
    with pytest.raises(VideoDecodeError) as caught:
        read_all(path, decoder)
    assert str(path) in str(caught.value) and caught.value.path == str(path)


@pytest.mark.parametrize("decoder", DECODERS)
def test_frame_beyond_the_end(tmp_path: Path, decoder: str) -> None:
    """The annotation says 41 frames, the file has 40: no frame is put in its place."""
    path = make_video(tmp_path / "v.mp4")
    with pytest.raises(VideoDecodeError, match=r"asks for frame 40, the file has 40") as caught:
        READERS[decoder](path, np.array([0, NUM_FRAMES]))
    assert str(path) in str(caught.value)


def move_index_to_front(path: Path) -> Path:
    """The same streams with the index before the frames: such a file can be opened when it is cut or damaged."""
    import av

    moved = path.with_name("front.mp4")
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_frames(tmp_path: Path, decoder: str, damage: str) -> None:
    """The file opens, then its frames end or are noise: an error that names it, not a repeated frame."""
    path = move_index_to_front(make_video(tmp_path / "v.mp4"))
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 1000
    if damage == "cut":
        path.write_bytes(content[:start])
    else:
        content[start:] = np.random.default_rng(0).integers(0, 256, len(content) - start, dtype=np.uint8).tobytes()
        path.write_bytes(content)
    with pytest.raises(VideoDecodeError) as caught:
        read_all(path, decoder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("decoder", ["pyav"])
@pytest.mark.parametrize("content", ["empty", "noise", "half"])
def test_file_that_cannot_be_opened(tmp_path: Path, decoder: str, content: str) -> None:
    """An empty file, random bytes, and the first half of a file whose index is at its end."""
    path = make_video(tmp_path / "v.mp4")
    whole = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    path.write_bytes({"empty": b"", "noise": noise, "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(VideoDecodeError) as caught:
        read_all(path, decoder)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("decoder", ["decord"])
def test_file_without_a_video_stream(tmp_path: Path, decoder: str) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoDecodeError) as caught:
        read_all(path, decoder)
    assert str(path) in str(caught.value)


def test_a_second_sentence_about_a_clip_does_not_read_the_file_again(tiny: Tiny, tmp_path: Path) -> None:
    """Its content is noise by then, under the same size and time: frames come from memory, or are an error."""
    sample = tiny.of_task("stvg")[0]
    for cache_gib in (1.0, 0.0):
        path = tmp_path / "video.mp4"
        shutil.copy(sample.video_path, path)
        video = tiny.data.video.model_copy(update={"cache_gib": cache_gib})
        encoder = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))
        first = encoder(replace(sample, video_path=str(path)))
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other = replace(sample, video_path=str(path), query="what is that?")
        if cache_gib == 0:
            with pytest.raises(VideoDecodeError, match=r"video\.mp4"):
                encoder(other)
        else:
            second = encoder(other)
            assert torch.equal(second.pixel_values_VC, first.pixel_values_VC)
            assert second.unexpanded_ids != first.unexpanded_ids


def test_a_file_that_has_changed_is_read_again(tiny: Tiny, tmp_path: Path) -> None:
    one, other = (
        tiny.of_task("stvg")[0],
        next(sample for sample in tiny.of_task("stvg") if sample.video_path != tiny.of_task("stvg")[0].video_path),
    )
    path, encoder = tmp_path / "video.mp4", PromptEncoder(tiny.processor, tiny.data)
    shutil.copy(one.video_path, path)
    before = encoder(replace(one, video_path=str(path)))
    shutil.copy(other.video_path, path)
    after = encoder(replace(one, video_path=str(path)))
    assert not torch.equal(after.pixel_values_VC, before.pixel_values_VC)
    assert torch.equal(after.pixel_values_VC, encoder(replace(one, video_path=other.video_path)).pixel_values_VC)


def test_a_kept_clip_is_checked_against_every_annotation(tiny: Tiny) -> None:
    """A second sentence whose size is not the file's is an error, though the frames are in memory."""
    sample, encoder = tiny.of_task("stvg")[0], PromptEncoder(tiny.processor, tiny.data)
    encoder(sample)
    with pytest.raises(VideoDecodeError, match="says 80 x 64"):
        encoder(replace(sample, query="what is that?", width=80))
