"""Odd and broken videos: the right frames or one VideoDecodeError with file and cause, and the next read works.

All reads go through reader processes, as in training. decord reads some kinds of files wrongly without a word; those
are errors that say so, and stay readable with PyAV.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import odd_videos as odd
import pytest
from odd_videos import B_FRAMES, FPS, HEIGHT, NUM_FRAMES, UNEVEN_MS, WIDTH, encode

from data.video_decoders import READERS
from data.video_frames import VideoDecodeError
from data.video_process import ReaderProcess

Make = Callable[[Path], Path]
DECODERS = ("decord", "pyav")
EVEN_SEC = np.arange(NUM_FRAMES) / FPS


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, ReaderProcess]]:
    """One process for each decoder, kept through all of these files."""
    processes = {decoder: ReaderProcess(decoder, timeout_sec=60.0) for decoder in DECODERS}
    yield processes
    for process in processes.values():
        process.close()


def levels(frames_THW3: np.ndarray) -> np.ndarray:
    """The index that a frame shows at its centre."""
    middle = frames_THW3[:, frames_THW3.shape[1] // 2, frames_THW3.shape[2] // 2]
    return (middle.mean(axis=-1) - 20) / 5


def decode_in_order(path: Path, count: int) -> np.ndarray:
    """The first `count` frames, without seeking or skipping anything."""
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)])


def hidden_start(path: Path) -> Path:
    """1.5 s = 12 frames are there and not shown, so that frame 0 is grey of level 12."""
    source = encode(path.with_name("whole.mp4"), x264=f"{B_FRAMES}:keyint=400")
    return odd.copy_packets(source, path, skip_sec=1.5)


def uneven(path: Path) -> Path:
    return encode(path, times_ms=UNEVEN_MS)


LONG_GOP, OPEN_GOP = f"{B_FRAMES}:keyint=400", f"{B_FRAMES}:open-gop=1:keyint=8"


def latin_title(path: Path) -> Path:
    """A title that is not UTF-8, as old cameras write."""
    return odd.titled(path, b"Caf\xe9")


# name of the file, how it is made, what decord says if it does not read it rightly, times of its frames
READABLE: list[tuple[str, Make, str, np.ndarray]] = [
    ("plain.mp4", odd.plain, "", EVEN_SEC),
    ("latin_title.mkv", latin_title, "", EVEN_SEC),
    ("one.mp4", lambda path: encode(path, times_ms=[0]), "", np.zeros(1)),
    ("uneven.mp4", uneven, "", np.array(UNEVEN_MS) / 1000),
    ("uneven.mkv", uneven, "", np.array(UNEVEN_MS) / 1000),
    ("starts_late.mp4", lambda path: encode(path, times_ms=range(1000, 6000, 125)), "", EVEN_SEC),
    ("starts_late.mkv", lambda path: encode(path, times_ms=range(1000, 6000, 125)), "", EVEN_SEC),
    ("long_gop.mp4", lambda path: encode(path, x264=LONG_GOP), "", EVEN_SEC),
    ("no_edit_list.mp4", lambda path: encode(path, x264=LONG_GOP, muxer={"use_editlist": "0"}), "", EVEN_SEC),
    ("odd_size.mp4", lambda path: encode(path, size=(65, 49), pixel_format="yuv444p"), "", EVEN_SEC),
    ("fragments.mp4", lambda path: encode(path, muxer={"movflags": "frag_keyframe+empty_moov"}), "", EVEN_SEC),
    ("vp9.webm", lambda path: encode(path, codec="libvpx-vp9"), "", EVEN_SEC),
    ("vp8.webm", lambda path: encode(path, codec="libvpx"), "", EVEN_SEC),
    ("open_gop.mp4", lambda path: encode(path, x264=OPEN_GOP), "open GOPs", EVEN_SEC),
    ("close_keys.mkv", lambda path: encode(path, x264="mbtree=0:bframes=3:keyint=3:min-keyint=1"), "", EVEN_SEC),
    ("transport.ts", lambda path: encode(path, x264=B_FRAMES), "wrong frames in mpegts files", EVEN_SEC),
    ("hidden.mp4", hidden_start, "an edit list hides", EVEN_SEC[:28]),
    ("wrong_count.avi", odd.wrong_count, "presentation times are missing", EVEN_SEC),
    ("av1.mp4", lambda path: encode(path, codec="libsvtav1"), "cannot find video stream", EVEN_SEC),
]


@pytest.mark.parametrize(("name", "make", "refusal", "times_sec"), READABLE, ids=[row[0] for row in READABLE])
def test_odd_videos(
    readers: dict[str, ReaderProcess],
    tmp_path: Path,
    name: str,
    make: Make,
    refusal: str,
    times_sec: np.ndarray,
) -> None:
    """Frames together, in any order and alone: the ones asked for, the same bits as decoding in order gives."""
    path, count = make(tmp_path / name), len(times_sec)
    expected = decode_in_order(path, count)
    orders = [np.arange(count), np.array([count - 1, 0, count // 2, 0]), *np.arange(0, count, 3)[:, None]]
    for decoder in DECODERS:
        if refusal and decoder == "decord":
            with pytest.raises(VideoDecodeError, match=refusal) as caught:
                readers[decoder](path, np.arange(count))
            assert caught.value.path == str(path)
            continue
        for order in orders:
            frames_THW3, times_sec_T = readers[decoder](path, order)
            np.testing.assert_array_equal(frames_THW3, expected[order])
            np.testing.assert_allclose(times_sec_T, times_sec[order], atol=1e-9)
        with pytest.raises(VideoDecodeError, match=f"asks for frame {count}, the file has {count}"):
            readers[decoder](path, np.array([0, count]))
    first = 12 if name == "hidden.mp4" else 0
    np.testing.assert_allclose(levels(expected), first + np.arange(count), atol=1.0)


@pytest.mark.parametrize(("degrees", "side"), [(90, "right"), (180, "bottom"), (270, "left")])
def test_turned_videos_are_read_as_shown(
    readers: dict[str, ReaderProcess], tmp_path: Path, degrees: int, side: str
) -> None:
    """The bar along the top goes right by a quarter turn clockwise. decord makes noise of quarter turns."""
    path = odd.turned(tmp_path / "turned.mp4", degrees)
    frames_THW3, _ = readers["pyav"](path, np.array([3, 30]))
    assert frames_THW3.shape == ((2, HEIGHT, WIDTH, 3) if degrees == 180 else (2, WIDTH, HEIGHT, 3))
    np.testing.assert_allclose(levels(frames_THW3), [3, 30], atol=0.5)
    edges = {"right": frames_THW3[:, :, -4:], "bottom": frames_THW3[:, -4:], "left": frames_THW3[:, :, :4]}
    assert edges[side].min() > 240
    if degrees == 180:
        np.testing.assert_array_equal(readers["decord"](path, np.array([3, 30]))[0], frames_THW3)
    else:
        with pytest.raises(VideoDecodeError, match="cannot turn a video on its side"):
            readers["decord"](path, np.array([3, 30]))


def written(content: bytes) -> Make:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def folder(path: Path) -> Path:
    path.mkdir()
    return path


# name of the file, how it is made, frames asked for, the cause that is named
BROKEN: list[tuple[str, Make, list[int], str]] = [
    ("missing.mp4", lambda path: path, [0], "no such file"),
    ("folder.mp4", folder, [0], "is a directory"),
    ("empty.mp4", written(b""), [0], "Invalid data"),
    ("text.mp4", written(b"not a video\n" * 100), [0], "Invalid data"),
    ("noise.mp4", written(np.random.default_rng(0).bytes(4000)), [0], "Invalid data"),
    ("first_half.mp4", lambda path: odd.cut_short(path, index_first=False), [0], "Invalid data"),
    ("cut.mp4", lambda path: odd.cut_short(path, index_first=True, keep=0.97), [0, 39], "asks for frame 39, the file"),
    ("damaged.mp4", odd.damaged, [0, 39], "Invalid data|Error sending packet"),
    ("sound.mp4", odd.sound_only, [0], "no video stream"),
    ("two_sizes.ts", odd.two_sizes, [0, 60], "frame size changes|presentation times are missing"),
    ("negative.mp4", odd.plain, [-1], "at least 0"),
    ("nothing.mp4", odd.plain, [], "at least 0"),
    ("empty.jpg", written(b""), [0], "cannot identify image"),
    ("text.png", written(b"not an image"), [0], "cannot identify image"),
]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("name", "make", "wanted", "cause"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken_videos(
    readers: dict[str, ReaderProcess],
    tmp_path: Path,
    decoder: str,
    name: str,
    make: Make,
    wanted: list[int],
    cause: str,
) -> None:
    """One error with file and cause, the same in this process; the reader process lives on."""
    path, good = make(tmp_path / name), odd.plain(tmp_path / "good.mp4")
    with pytest.raises(VideoDecodeError, match=cause) as caught:
        readers[decoder](path, np.array(wanted, dtype=np.int64))
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(VideoDecodeError) as here:
        READERS[decoder](path, np.array(wanted, dtype=np.int64))
    assert str(here.value) == str(caught.value)
    pid = readers[decoder].pid
    np.testing.assert_allclose(levels(readers[decoder](good, np.array([7]))[0]), [7], atol=0.5)
    assert readers[decoder].pid == pid


def test_a_frame_that_was_patched_up_is_none(readers: dict[str, ReaderProcess], tmp_path: Path) -> None:
    """Frame 5 is damaged: what comes before is right, frame 9 is decoded from it. decord hides this from its callers."""
    path = odd.damaged_at(tmp_path / "v.mp4", 5)
    np.testing.assert_allclose(levels(readers["pyav"](path, np.array([4]))[0]), [4], atol=5)
    for wanted in (5, 9):
        with pytest.raises(VideoDecodeError, match=r"PyAV: the frame at 0\.625 s is damaged"):
            readers["pyav"](path, np.array([wanted]))


@pytest.mark.parametrize("number", range(3))
def test_random_damage(readers: dict[str, ReaderProcess], tmp_path: Path, number: int) -> None:
    """Some bytes anywhere in the file: frames of the right shape or one error; nothing hangs, no process dies."""
    rng, content = np.random.default_rng(number), odd.plain(tmp_path / "whole.mp4").read_bytes()
    pids = {decoder: reader.pid for decoder, reader in readers.items()}
    for index in range(12):
        path, damaged = tmp_path / f"{index}.mp4", bytearray(content)
        for place in rng.integers(0, len(content), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        for reader in readers.values():
            with contextlib.suppress(VideoDecodeError):
                frames_THW3, times_sec_T = reader(path, np.array([0, 20, 39]))
                assert len(frames_THW3) == len(times_sec_T) == 3 and np.isfinite(times_sec_T).all()
    assert {decoder: reader.pid for decoder, reader in readers.items()} == pids


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_that_may_not_be_read(tmp_path: Path, decoder: str) -> None:
    """Root may read anything: it becomes nobody for the time of the read."""
    path = odd.plain(tmp_path / "v.mp4")
    READERS[decoder](path, np.array([0]))
    path.chmod(0)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        with pytest.raises(VideoDecodeError) as caught:
            READERS[decoder](path, np.array([0]))
    finally:
        if is_root:
            os.seteuid(0)
    assert str(caught.value) == f"{path}: {os.strerror(errno.EACCES).lower()}"


@pytest.mark.parametrize("name", ["i.jpg", "i.png", "I.JPEG"])
def test_an_image_is_a_clip_of_one_frame(readers: dict[str, ReaderProcess], tmp_path: Path, name: str) -> None:
    """Whatever the decoder; EXIF 6 asks for a quarter turn clockwise, and the bar along the top goes right."""
    from PIL import Image

    image, exif = Image.fromarray(odd.picture(5)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / name, exif=exif)
    for decoder in DECODERS:
        frames_THW3, times_sec_T = readers[decoder](tmp_path / name, np.array([0]))
        assert frames_THW3.shape == (1, WIDTH, HEIGHT, 3) and times_sec_T.tolist() == [0.0]
        assert frames_THW3[0, :, -4:].min() > 200 and frames_THW3[0, :, :4].max() < 60
        with pytest.raises(VideoDecodeError, match="asks for frame 1, the file has 1"):
            readers[decoder](tmp_path / name, np.array([1]))
