"""What the `bridge` grounder computes for a video 16 times as long, with the same interval of four frames."""

from pathlib import Path

import pytest

from benchmarks.decoder_time import PARTS, calls_of_lengths, flops, measure, table


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int]]:
    """Operations of each part for 8 and for 128 sampled frames."""
    short, long = calls_of_lengths(str(tmp_path_factory.mktemp("decoder_time")), (8, 128)).values()
    return {part: (flops(short[part]), flops(long[part])) for part in PARTS}


def test_the_decoder_computes_the_same_to_the_digit(counted: dict[str, tuple[int, int]]) -> None:
    """Its attention alone is 6 layers x 4 frames x 64 cells x 2 projections of 256 x 256, so it is no empty count."""
    short, long = counted["decoder"]
    assert short == long > 2 * 6 * 4 * 64 * 2 * 256 * 256


def test_alignment_grows_with_the_video_and_nothing_else_does(counted: dict[str, tuple[int, int]]) -> None:
    """A sum over tokens, 16 to a patch of two frames: each adds the same. 128 frames are 64 patches, 8 are 4."""
    short, long = counted["alignment"]
    # Each token: 128 wide to 256, 256 to 1 (the cell's score). Each patch: 256 to 1, and 256 to sum up.
    of_patch = 2 * (16 * (128 * 256 + 256) + 256 + 256)
    assert long - short == 60 * of_patch
    grounder_short, grounder_long = counted["grounder"]
    assert grounder_long - grounder_short == long - short


def test_its_report_has_every_length(tmp_path: Path) -> None:
    result = measure(calls_of_lengths(str(tmp_path), (8, 16)), repeats=1)
    assert list(result["decoder_ms"]) == [8, 16]
    assert result["decoder_flops"][8] == result["decoder_flops"][16]
    assert all(result[f"{part}_ratio"] > 0 for part in PARTS)
    assert len(table(result).splitlines()) == 4
