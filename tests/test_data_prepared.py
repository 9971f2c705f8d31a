"""Samples in Parquet: what goes in comes out, to the last bit, and a damaged file is named."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prepared_samples import OF_EVERY_KIND, PROBED

from configs.sources import PreparedSource
from data.annotations import AnnotationError
from data.parquet import read_samples, write_samples
from data.sources import prepared


@pytest.mark.parametrize("num_copies", [1, 1001])
def test_samples_come_back_as_they_were(tmp_path: Path, num_copies: int) -> None:
    """Of all tasks, null boxes, no boxes, exact floats, Unicode; in more rows than are held at a time."""
    samples = [
        dataclasses.replace(sample, sample_id=f"{sample.sample_id}-{i}")
        for i in range(num_copies)
        for sample in OF_EVERY_KIND
    ]
    path = tmp_path / "data" / "train.parquet"
    path.parent.mkdir()
    write_samples(path, samples)
    read = prepared.load(PreparedSource(root=str(tmp_path)), "train")
    assert read.samples == samples and read.num_records == len(samples) and not read.rejected


def test_sentences_about_one_track_share_its_boxes(tmp_path: Path) -> None:
    other = dataclasses.replace(PROBED, sample_id="b", boxes_xyxy_px=(None, None, (0.0, 0.0, 1.0, 1.0)))
    write_samples(tmp_path / "x.parquet", [PROBED, dataclasses.replace(PROBED, sample_id="a"), other])
    first, second, third = read_samples(tmp_path / "x.parquet")
    assert first.boxes_xyxy_px is second.boxes_xyxy_px
    assert third == other


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_samples(tmp_path / name, OF_EVERY_KIND)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def damage_missing(path: Path) -> None:
    path.unlink()


def damage_text(path: Path) -> None:
    path.write_text("not Parquet")


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["clip"]), path)


def damage_id(path: Path) -> None:
    write_samples(path, [PROBED, PROBED])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_missing, "no such file; python -m data.prepare"),
        (damage_text, "row 0: .*magic bytes"),
        (damage_cut, "row 0: .*"),
        (damage_column, "row 0: no column 'clip'"),
        (damage_id, "row 1: .*is there twice"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, expected: str) -> None:
    path = tmp_path / "data" / "train.parquet"
    path.parent.mkdir()
    write_samples(path, OF_EVERY_KIND)
    damage(path)
    with pytest.raises(AnnotationError, match=expected) as caught:
        prepared.load(PreparedSource(root=str(tmp_path)), "train")
    assert caught.value.path == str(path)
