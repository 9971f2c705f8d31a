"""Decoded frames on disk: equal to decoding, bounded, shared, and decoded again where file or entry has changed."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import odd_videos as odd
import pytest

from configs.base import ConfigError
from configs.video import VideoConfig
from data.video import open_reader
from data.video_cache import SUBFOLDER, DiskCache
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
    """All files that a cache keeps in `folder`, also hidden ones."""
    return sorted((folder / SUBFOLDER).iterdir())


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
        lambda entry: entry.write_bytes(entry.read_bytes() + b"\0"),
        lambda entry: entry.write_bytes(entry.read_bytes()[1:]),
    ],
    ids=["a pixel", "half", "empty", "zeros", "a byte more", "a byte less"],
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


def test_damage_anywhere_is_found(tmp_path: Path, video: Path) -> None:
    """A bit in each byte of the sum and of the first array's header, and in every 97th byte behind: shapes, pixels, times."""
    folder = tmp_path / "cache"
    cache = cache_in(folder)
    expected = cache(video, TWO)
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    for place in [*range(200), *range(200, len(whole), 97), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        entry.write_bytes(damaged)
        for one, other in zip(cache(video, TWO), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert entry.read_bytes() == whole


def test_another_shape_in_the_header_is_found(tmp_path: Path, video: Path) -> None:
    """(2, 48, 64, 3) that became (2, 24, 64, 3) still describes bytes that are there."""
    folder = tmp_path / "cache"
    cache = cache_in(folder)
    cache(video, TWO)
    (entry,) = entries(folder)
    content = entry.read_bytes()
    assert content.count(b"(2, 48, 64, 3)") == 1
    entry.write_bytes(content.replace(b"(2, 48, 64, 3)", b"(2, 24, 64, 3)"))
    assert cache(video, TWO)[0].shape == (2, 48, 64, 3)
    assert entry.read_bytes() == content


def test_no_file_but_its_own_is_touched(tmp_path: Path, video: Path) -> None:
    """The folder of the videos as the cache's, with room for one clip; files and a folder also where entries lie, old ones
    first in line for deletion."""
    inside = tmp_path / SUBFOLDER
    cache = cache_in(tmp_path, max_bytes=CLIP_BYTES + 1024)
    hexadecimal = "0" * 64
    foreign = [tmp_path / "notes.txt", tmp_path / f"clip-{hexadecimal}.frames", tmp_path / f"{hexadecimal}.npz"]
    foreign += [inside / "clip-1.frames", inside / f"{hexadecimal}.npz", inside / f"clip-{hexadecimal}.frames.mp4"]
    (inside / f"clip-{hexadecimal}.frames").mkdir()
    for file in foreign:
        file.write_bytes(bytes(CLIP_BYTES))
        os.utime(file, (0, 0))
    for index in range(4):
        cache(video, np.array([index, 39]))
    kept = set(entries(tmp_path)) - {*foreign, inside / f"clip-{hexadecimal}.frames"}
    assert len(kept) == 1 and kept.pop().is_file()
    assert video.exists() and (inside / f"clip-{hexadecimal}.frames").is_dir()
    assert all(file.read_bytes() == bytes(CLIP_BYTES) for file in foreign)


def test_what_is_in_the_way_is_an_error_that_names_it(tmp_path: Path, video: Path) -> None:
    """A file in the place of the sub-folder, a folder in the place of an entry."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / SUBFOLDER).write_bytes(b"")
    with pytest.raises(ConfigError, match=f"decode_cache: expected a folder at .*one/{SUBFOLDER}: File exists"):
        cache_in(tmp_path / "one")
    cache = cache_in(tmp_path / "other")
    cache(video, TWO)
    (entry,) = entries(tmp_path / "other")
    entry.unlink()
    entry.mkdir()
    with pytest.raises(ConfigError, match=f"decode_cache: expected a file at .*{entry.name}, found a folder"):
        cache(video, TWO)


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
    left = folder / SUBFOLDER / f".writing-{'0' * 32}.frames"
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
