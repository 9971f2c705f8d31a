"""A prepared folder: what goes in comes out, to the last bit, rejected records too; a damaged file is named."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from prepared_samples import OF_EVERY_KIND, PROBED

from configs.data import DataConfig
from configs.sources import JsonlSource, MixturePart, MixtureSource, PreparedSource
from data.annotations import AnnotationError
from data.parquet import read_samples, write_samples
from data.prepare import main
from data.sources import jsonl, load_samples, prepared
from data.sources.jsonl import write_samples as write_jsonl
from data.types import GroundingSample
from evaluation import score


def write_folder(root: Path, samples: Sequence[GroundingSample]) -> Path:
    """A folder of one split as `data.prepare` leaves it. -> its Parquet file."""
    path = root / "data" / "train.parquet"
    path.parent.mkdir()
    write_samples(path, samples)
    split = {"records": len(samples), "rejected": [], "flags": {}, "videos": {"problems": []}}
    (root / "report.json").write_text(json.dumps({"splits": {"train": split}}))
    return path


@pytest.mark.parametrize("num_copies", [1, 1001])
def test_samples_come_back_as_they_were(tmp_path: Path, num_copies: int) -> None:
    """Of all tasks, null boxes, no boxes, exact floats, Unicode; in more rows than are held at a time."""
    samples = [
        dataclasses.replace(sample, sample_id=f"{sample.sample_id}-{i}")
        for i in range(num_copies)
        for sample in OF_EVERY_KIND
    ]
    write_folder(tmp_path, samples)
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
    path = write_folder(tmp_path, OF_EVERY_KIND)
    damage(path)
    with pytest.raises(AnnotationError, match=expected) as caught:
        prepared.load(PreparedSource(root=str(tmp_path)), "train")
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, r"no such file, so the preparation has not finished; python -m data\.prepare"),
        ("{", "not valid JSON"),
        ('{"splits": {"val": {}}}', r"field splits\.train: says nothing of this split"),
        ('{"splits": {"train": {}}}', r"field splits\.train\.records: is missing"),
    ],
)
def test_a_damaged_report_is_named(tmp_path: Path, text: str | None, expected: str) -> None:
    """Without it the rejected records would be forgotten."""
    write_folder(tmp_path, OF_EVERY_KIND)
    (tmp_path / "report.json").unlink() if text is None else (tmp_path / "report.json").write_text(text)
    with pytest.raises(AnnotationError, match=expected) as caught:
        prepared.load(PreparedSource(root=str(tmp_path)), "train")
    assert caught.value.path == str(tmp_path / "report.json")


# rejected records and bad videos, through data.prepare


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """-> a JSONL file of which lines 2 and 4 are bad and line 3 has no video, and what became of its folder."""
    root = tmp_path_factory.mktemp("folders")
    good = dataclasses.replace(PROBED, video_path=str(root / "mine" / "good.mp4"))
    (root / "mine").mkdir()
    (root / "mine" / "good.mp4").touch()
    path = root / "mine" / "train.jsonl"
    lost = dataclasses.replace(good, sample_id="lost", video_path=str(root / "mine" / "lost.mp4"))
    write_jsonl(path, [good, lost])
    first, third = path.read_text().splitlines()
    path.write_text("\n".join([first, first, third, first.replace('"fps": 8.0', '"fps": -8.0')]))
    words = ["--source", "jsonl", "--annotations", str(path.parent), "--out", str(root / "out")]
    main([*words, "--num-processes", "1", "--bad-records", "skip", "--problem-videos", "skip"])
    return path, root / "out"


def test_rejected_records_come_back_as_the_original_tells_them(folders: tuple[Path, Path]) -> None:
    path, out = folders
    original = jsonl.load(JsonlSource(root=str(path.parent)), "train")
    read = prepared.load(PreparedSource(root=str(out)), "train")
    messages = [str(error) for error in read.rejected]
    assert messages == [str(error) for error in original.rejected]
    assert messages[0] == f"{path}, line 2, field sample_id: 'good' is there twice"
    assert messages[1].startswith(f"{path}, line 4, field fps: ")
    assert (read.samples, read.num_records) == (original.samples, 4)


def test_a_score_against_the_folder_is_refused_as_one_against_the_original(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    for annotations in folders:
        with pytest.raises(SystemExit) as caught:
            score.main(f"--predictions none --protocol canon --split train --annotations {annotations}".split())
        assert caught.value.code == 2
        said.append(caplog.records[-1].getMessage())
    assert said[0] == said[1] and f"{folders[0]}, line 2, field sample_id: 'good' is there twice" in said[0]


def test_flags_come_back(tmp_path: Path) -> None:
    write_folder(tmp_path, [PROBED])
    report = json.loads((tmp_path / "report.json").read_text())
    report["splits"]["train"]["flags"] = {"duplicate": ["good"]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert prepared.load(PreparedSource(root=str(tmp_path)), "train").flags == {"duplicate": ["good"]}


def data_of(out: Path, **changes: Any) -> DataConfig:
    """Trains on a prepared folder; changes are fields of the source, and `bad_records`."""
    bad_records = changes.pop("bad_records", "error")
    return DataConfig(source=PreparedSource(root=str(out), **changes), bad_records=bad_records)


def test_training_does_with_rejected_records_what_bad_records_says(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    path, out = folders
    with pytest.raises(AnnotationError) as caught:
        load_samples(data_of(out, problem_videos="skip"), "train")
    assert str(caught.value) == (
        f"{path}, line 2, field sample_id: 'good' is there twice. 2 rejected, 4 records read; "
        "data.bad_records=skip leaves them out"
    )
    (sample,) = load_samples(data_of(out, problem_videos="skip", bad_records="skip"), "train")
    assert sample.sample_id == "good"
    assert "train: 2 of 4 records left out, first:" in caplog.text


def test_training_does_with_bad_videos_what_problem_videos_says(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    path, out = folders
    lost = path.parent / "lost.mp4"
    count = f"1 of 2 samples have a video that {out}/report.json says cannot be used"
    with pytest.raises(AnnotationError) as caught:
        load_samples(data_of(out, bad_records="skip"), "train")
    assert str(caught.value) == (
        f"{lost}, sample 'lost', field video_path: missing: no such file. {count}; "
        "problem_videos=skip of this source (data.source.problem_videos=skip) leaves them out"
    )
    load_samples(data_of(out, bad_records="skip", problem_videos="skip"), "train")
    assert f"train: {count} and are left out, first: {lost}: missing: no such file" in caplog.text


@pytest.mark.parametrize("problem_videos", ["error", "skip"])
def test_a_prediction_keeps_samples_of_bad_videos(folders: tuple[Path, Path], problem_videos: str) -> None:
    """They are failed answers, not samples fewer: evaluation.predict asks with probe=False."""
    data = data_of(folders[1], bad_records="skip", problem_videos=problem_videos)
    assert [sample.sample_id for sample in load_samples(data, "train", probe=False)] == ["good", "lost"]


def test_a_part_of_a_mixture_has_its_own_problem_videos(folders: tuple[Path, Path]) -> None:
    def data(problem_videos: Any) -> DataConfig:
        part = MixturePart(source=PreparedSource(root=str(folders[1]), problem_videos=problem_videos))
        return DataConfig(source=MixtureSource(parts={"mine": part}), bad_records="skip")

    with pytest.raises(AnnotationError, match=r"missing: no such file.*\(part 'mine' of the mixture\)"):
        load_samples(data("error"), "train")
    assert [sample.sample_id for sample in load_samples(data("skip"), "train")] == ["mine/good"]
    assert len(load_samples(data("error"), "train", probe=False)) == 2
