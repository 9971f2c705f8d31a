"""Decoded frames on disk: equal to decoding, bounded, shared, and decoded again where file or entry has changed."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odd_videos as odd
import pytest

from configs.video import VideoConfig
from data.video import open_reader
from data.video_cache import DiskCache
from data.video_decoders import READERS
from data.video_frames import VideoDecodeError

TWO = np.array([0, 20])
CLIP_BYTES = 2 * odd.HEIGHT * odd.WIDTH * 3
GIB = 2**30


@pytest.fixture()
def video(tmp_path: Path) -> Path:
    """Frame t is grey of level 20 + 5 t."""
    return odd.plain(tmp_path / "v.mp4")


def cache_in(folder: Path, *, max_bytes: int = GIB, decoder: str = "pyav") -> DiskCache:
    """Of an in-process reader."""
    return DiskCache(READERS[decoder], folder, max_gib=max_bytes / GIB, decoder=decoder)


def entries(folder: Path) -> list[Path]:
    """All files of a cache folder, also hidden ones."""
    return sorted(folder.iterdir())


def make_unreadable(path: Path) -> None:
    """Other content, though with the same size and time, so that only a cache can answer."""
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_a_hit_is_what_decoding_gives(tmp_path: Path, video: Path, decoder: str) -> None:
    """By another cache on the folder, as of another rank or run."""
    expected = READERS[decoder](video, TWO)
    cache_in(tmp_path / "cache", decoder=decoder)(video, TWO)
    make_unreadable(video)
    for one, other in zip(cache_in(tmp_path / "cache", decoder=decoder)(video, TWO), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def changed_time(path: Path) -> None:
    stat = path.stat()
    make_unreadable(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def changed_size(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size + 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [changed_time, changed_size])
def test_a_changed_file_is_read_again(tmp_path: Path, video: Path, change: Callable[[Path], None]) -> None:
    """It is no video by then, which only a reader finds out."""
    cache = cache_in(tmp_path / "cache")
    cache(video, TWO)
    change(video)
    with pytest.raises(VideoDecodeError, match="Invalid data"):
        cache(video, TWO)


def test_other_frames_and_another_decoder_are_other_entries(tmp_path: Path, video: Path) -> None:
    folder = tmp_path / "cache"
    cache = cache_in(folder)
    for wanted, level in (([0, 20], [0, 20]), ([20, 0], [20, 0]), ([0, 21], [0, 21])):
        frames_THW3, _ = cache(video, np.array(wanted))
        middle = frames_THW3[:, odd.HEIGHT // 2, 0].mean(axis=-1)
        np.testing.assert_allclose((middle - 20) / 5, level, atol=0.5)
    assert len(entries(folder)) == 3
    cache_in(folder, decoder="decord")(video, TWO)
    assert len(entries(folder)) == 4


def flip_a_pixel(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)


def halve(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        halve,
        lambda entry: entry.write_bytes(b""),
        lambda entry: entry.write_bytes(b"\0" * 5000),
        lambda entry: np.savez(entry, something_else=np.zeros(3)),
    ],
    ids=["a pixel", "half", "empty", "zeros", "other content"],
)
def test_a_damaged_entry_is_decoded_again_and_replaced(
    tmp_path: Path, video: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "cache"
    cache = cache_in(folder)
    expected, _ = cache(video, TWO)
    (entry,) = entries(folder)
    damage(entry)
    np.testing.assert_array_equal(cache(video, TWO)[0], expected)
    make_unreadable(video)
    np.testing.assert_array_equal(cache(video, TWO)[0], expected)
    assert entries(folder) == [entry]


def test_the_longest_unused_entry_makes_room(tmp_path: Path, video: Path) -> None:
    """Room for two clips. Clips 0 and 1 are read, 0 is used again, 2 comes: 1 is gone."""
    folder = tmp_path / "cache"
    cache = cache_in(folder, max_bytes=int(2.5 * (CLIP_BYTES + 1024)))
    written = {}
    for index in (0, 1):
        before = set(entries(folder))
        cache(video, np.array([index, 39]))
        (written[index],) = set(entries(folder)) - before
        os.utime(written[index], (index, index))
    cache(video, np.array([0, 39]))
    cache(video, np.array([2, 39]))
    assert written[0].exists() and not written[1].exists() and len(entries(folder)) == 2


def test_the_folder_stays_below_its_bound(tmp_path: Path, video: Path) -> None:
    """What killed writers have left counts, and goes first when it is oldest."""
    folder, bound = tmp_path / "cache", 3 * (CLIP_BYTES + 1024)
    cache = cache_in(folder, max_bytes=bound)
    left = folder / ".left-by-a-killed-writer"
    left.write_bytes(bytes(CLIP_BYTES))
    os.utime(left, (0, 0))
    for index in range(6):
        cache(video, np.array([index, index + 1]))
        assert sum(entry.stat().st_size for entry in entries(folder)) <= bound
    assert not left.exists() and len(entries(folder)) == 3


def test_a_clip_that_is_larger_than_the_bound_is_read_and_not_kept(tmp_path: Path, video: Path) -> None:
    cache = cache_in(tmp_path / "cache", max_bytes=CLIP_BYTES // 2)
    assert len(cache(video, TWO)[0]) == 2
    assert entries(tmp_path / "cache") == []


def test_several_writers_share_a_folder(tmp_path: Path, video: Path) -> None:
    """Four caches on one folder that holds three of their eight clips, all at once: every answer is right."""
    folder = tmp_path / "cache"
    expected, _ = READERS["pyav"](video, np.arange(9))

    def read_some(rank: int) -> None:
        cache = cache_in(folder, max_bytes=3 * (CLIP_BYTES + 1024))
        for index in np.random.default_rng(rank).integers(0, 8, 25):
            np.testing.assert_array_equal(cache(video, np.array([index, index + 1]))[0], expected[[index, index + 1]])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_some, range(4)))


def test_a_missing_file_is_an_error_though_its_frames_are_kept(tmp_path: Path, video: Path) -> None:
    cache = cache_in(tmp_path / "cache")
    cache(video, TWO)
    video.unlink()
    with pytest.raises(VideoDecodeError, match=r"v\.mp4: no such file"):
        cache(video, TWO)


def test_the_config_asks_for_it(tmp_path: Path, video: Path) -> None:
    video_config = VideoConfig(decode_cache=str(tmp_path / "cache"), decode_cache_gib=1.0, decoder="pyav")
    frames_THW3, _ = open_reader(video_config)(video, TWO)
    assert len(entries(tmp_path / "cache")) == 1
    make_unreadable(video)
    np.testing.assert_array_equal(open_reader(video_config)(video, TWO)[0], frames_THW3)
