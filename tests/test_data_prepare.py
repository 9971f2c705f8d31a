"""data.prepare: annotations and videos in, a datasets folder and an honest report out."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from prepared_samples import HEIGHT, NUM_FRAMES, OF_EVERY_KIND, PROBED, QA, UNPROBED, WIDTH
from published import published

from configs.sources import PreparedSource, SyntheticSource, VidstgSource
from data.parquet import read_samples
from data.preparation.annotation_files import digest_of_annotations
from data.preparation.facts import reason_of, rejected_by_reason
from data.preparation.folder import PreparedFolder
from data.preparation.pool import SturdyPool
from data.preparation.videos import VIDEOS_PER_CHUNK, Finding, VideoJob, look_at_all
from data.prepare import main
from data.sources import prepared, synthetic, vidstg
from data.sources.jsonl import write_samples as write_jsonl
from data.types import FrameSpan
from data.video import write_video

ACCEPTING = ("--bad-records", "skip", "--problem-videos", "skip")


def make_video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.full((HEIGHT, WIDTH, 3), 20 + t, dtype=np.uint8) for t in range(NUM_FRAMES)]
    write_video(path, frames, fps=8.0, width=WIDTH, height=HEIGHT)


# the command


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good samples of one video, one in seconds, one sample for each thing that can be wrong with a video."""
    folder = tmp_path_factory.mktemp("annotations")
    make_video(folder / "good.mp4")
    shutil.copy(folder / "good.mp4", folder / "seconds.mp4")
    shutil.copy(folder / "good.mp4", folder / "short.mp4")
    shutil.copy(folder / "good.mp4", folder / "wide.mp4")
    (folder / "text.mp4").write_text("not a video")
    bad = {
        "missing": {},
        "text": {},
        "short": {"clip": FrameSpan(0, NUM_FRAMES + 1)},
        "wide": {"width": WIDTH + 2},
    }
    samples = [dataclasses.replace(PROBED, video_path=str(folder / "good.mp4"))]
    samples += [dataclasses.replace(QA, video_path=str(folder / "good.mp4"))]
    samples += [dataclasses.replace(UNPROBED, video_path=str(folder / "seconds.mp4"))]
    samples += [
        dataclasses.replace(PROBED, sample_id=name, video_path=str(folder / f"{name}.mp4"), **changes)
        for name, changes in bad.items()
    ]
    write_jsonl(folder / "train.jsonl", samples)
    with (folder / "train.jsonl").open("a") as stream:
        stream.write('{"sample_id": 5}\n{"sample_id": 6}\nno JSON\n')
    return folder


@pytest.fixture(scope="module")
def checked(annotations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared with a look at the videos."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    command = ["--source", "jsonl", "--annotations", str(annotations), "--out", str(out), "--check-videos"]
    main([*command, "--num-processes", "1", *ACCEPTING])
    return out


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())["splits"]


def test_every_bad_video_is_one_problem_and_its_samples_stay(checked: Path) -> None:
    """16 frames: frame 16 is not there. The others are looked at nevertheless."""
    (split,) = report_of(checked).values()
    assert split["samples"] == 7
    problems = {
        Path(row["video"]).stem: (row["problem"], row["cause"], row["samples"]) for row in split["videos"]["problems"]
    }
    assert problems == {
        "missing": ("missing", "no such file", ["missing"]),
        "text": ("unreadable", "PyAV: Invalid data found when processing input", ["text"]),
        "short": ("disagrees", "the file has 16 frames, the annotation asks for frame 16", ["short"]),
        "wide": ("disagrees", "the file is 64 x 48, the annotation says 66 x 48", ["wide"]),
    }
    assert split["effective"] == {
        "with an answer": 7,
        "with a box in some frame": 5,
        "with frame rate and size of the video": 7,
        "with a video that was looked at and is right": 3,
    }


def test_a_sample_in_seconds_gets_the_clock_of_its_video(checked: Path) -> None:
    """0.5 to 1.0 s at 8 frames a second."""
    samples = {sample.sample_id: sample for sample in prepared.load(PreparedSource(root=str(checked)), "train").samples}
    assert samples["seconds"].span == FrameSpan(4, 8) and samples["seconds"].clip == FrameSpan(0, NUM_FRAMES)
    assert samples["good"].boxes_xyxy_px == PROBED.boxes_xyxy_px


def test_rejected_records_are_listed_by_reason(checked: Path) -> None:
    rejected = report_of(checked)["train"]["rejected"]
    assert [row["record"] for row in rejected] == ["line 8", "line 9", "line 10"]
    assert [group["count"] for group in rejected_by_reason(rejected)] == [2, 1]
    text = (checked / "report.md").read_text()
    assert "`line 8`, `line 9`" in text


def test_the_report_names_the_command_and_the_counts(checked: Path, annotations: Path) -> None:
    text = (checked / "report.md").read_text()
    assert (
        f"python -m data.prepare --source jsonl --annotations {annotations} --out {checked} --check-videos --decoder pyav\n"
        in text
    )
    assert "| train | 10 | 7 | 3 | 6 | 4 |" in text
    assert "| qa | interrogative | 1 |" in text
    assert "(histograms.png)" in text and (checked / "histograms.png").read_bytes().startswith(b"\x89PNG")
    assert not (checked / ".partial").exists()


def test_statistics_are_those_of_the_samples(checked: Path) -> None:
    """Clips: five of 14 frames, one of 17, one of 16. Boxes: 2 of 3 frames."""
    statistics = report_of(checked)["train"]["statistics"]
    assert statistics["clip_sec"] == {"samples": 7, "min": 1.75, "median": 1.75, "mean": pytest.approx((5 * 14 + 33) / 56, abs=1e-4), "max": 2.125}  # fmt: skip
    assert statistics["boxed_share"]["median"] == pytest.approx(2 / 3, abs=1e-4)
    assert statistics["words"]["max"] == 5


def test_datasets_loads_the_folder(checked: Path, tmp_path: Path) -> None:
    loaded = datasets.load_dataset(str(checked), cache_dir=str(tmp_path))
    assert set(loaded) == {"train"}
    row = next(row for row in loaded["train"] if row["sample_id"] == "good")
    assert row["boxes_xyxy_px"] == [[1.0, 2.0, 3.25, 4.0], None, [0.1, 0.0, 64.0, 48.0]]
    assert row["span"] == [4, 7]


def test_a_finished_command_is_not_run_again(
    checked: Path, annotations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (checked / "report.md").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        main(
            [
                "--source",
                "jsonl",
                "--annotations",
                str(annotations),
                "--out",
                str(checked),
                "--check-videos",
                *ACCEPTING,
            ]
        )
    assert "has finished before" in caplog.text
    assert (checked / "report.md").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ((), "report.json: 3 records rejected (--bad-records skip accepts them), 4 problems with videos (--problem-videos skip accepts them)"),
        (ACCEPTING[:2], "report.json: 4 problems with videos (--problem-videos skip accepts them)"),
        (ACCEPTING[2:], "report.json: 3 records rejected (--bad-records skip accepts them)"),
    ],
)  # fmt: skip
def test_what_was_not_accepted_is_status_3(
    checked: Path, annotations: Path, accepted: tuple[str, ...], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a command that has finished before too."""
    with pytest.raises(SystemExit) as ended:
        main(
            ["--source", "jsonl", "--annotations", str(annotations), "--out", str(checked), "--check-videos", *accepted]
        )
    assert ended.value.code == 3
    assert caplog.records[-1].getMessage().endswith(expected)


def complaint(caplog: pytest.LogCaptureFixture, *arguments: str) -> str:
    """What a command that cannot be used says."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return caplog.records[-1].getMessage()


def test_another_command_is_refused(checked: Path, annotations: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = complaint(caplog, "--source", "jsonl", "--annotations", str(annotations), "--out", str(checked))
    assert "belongs to another command (check_with: 'pyav' -> None); choose another --out or remove it" in said


def test_changed_annotations_are_not_taken_for_done(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Refused, and the folder stays as it was; as they were, the command has finished."""
    path, out = tmp_path / "mine" / "train.jsonl", tmp_path / "mine" / "out"
    path.parent.mkdir()
    write_jsonl(path, [PROBED])
    command = [
        "--source",
        "jsonl",
        "--annotations",
        str(path.parent),
        "--out",
        str(out),
        "--num-processes",
        "1",
        *ACCEPTING,
    ]
    main(command)
    before, original = (out / "report.json").read_bytes(), path.read_bytes()
    path.write_bytes(original.replace(b"good", b"GOOD"))
    assert "belongs to another command (annotation_files: 'sha256 of contents " in complaint(caplog, *command)
    assert (out / "report.json").read_bytes() == before
    path.write_bytes(original)
    main(command)


@pytest.mark.parametrize(("limit_bytes", "kind"), [(2, "contents"), (1, "sizes and times")])
def test_a_digest_is_of_annotation_files(tmp_path: Path, limit_bytes: int, kind: str) -> None:
    """Two files of a byte each, one in the tracks. Videos and what is prepared are no part of it."""
    files = [tmp_path / "annotations" / "val.json", tmp_path / "tracks" / "1" / "2.json"]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("1")
    source = VidstgSource(annotations=str(files[0].parent), tracks=str(tmp_path / "tracks"))

    def digest() -> str:
        return digest_of_annotations(source, out=files[0].parent / "out", content_limit_bytes=limit_bytes)

    before = digest()
    assert before.startswith(f"sha256 of {kind} ")
    (files[0].parent / "out").mkdir()
    (files[0].parent / "out" / "report.json").write_text("{}")
    (files[0].parent / "video.mp4").touch()
    assert digest() == before
    os.utime(files[1], ns=(1, 1))
    assert (digest() == before) == (kind == "contents")
    files[1].write_text("2")
    assert digest() != before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--source", "vidstg", "--out", "x"], "--annotations: expected a folder"),
        (["--source", "vidstg", "--annotations", "a"], "--out: expected a folder"),
        (["--source", "vidstg", "--annotations", "a", "--out", "x", "layuot=stcat"], "unknown key 'layuot'; did you mean 'layout'"),
        (["--source", "vidstg", "--annotations", "a", "--out", "x", "layout=mine"], "layout: Input should be"),
        (["--source", "vidstg", "--annotations", ".", "--out", "x", "--check-videos"], "--check-videos: expected --videos"),
        (["--source", "jsonl", "--annotations", ".", "--videos", ".", "--out", "x"], "--videos: not for jsonl"),
        (["--source", "vidstg", "--annotations", "a", "--out", "x", "--splits", "val", "layout=stcat"], "before --splits"),
        (["--config", "x.yaml", "--bad-records", "skip"], "--bad-records: expected with --source alone; with --config "),
        (["--config", "x.yaml", "--problem-videos", "error"], "--problem-videos: expected with --source alone"),
        (["--config", "x.yaml", "--out", "x"], "--out: expected with --source alone"),
    ],
)  # fmt: skip
def test_what_was_typed_wrong_is_said(
    arguments: list[str],
    expected: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in complaint(caplog, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "one of the arguments --config --source is required"),
        (["--source", "vidstgg"], "invalid choice: 'vidstgg'"),
    ],
)
def test_options_that_there_are_none_of(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert expected in capsys.readouterr().err


def test_a_command_that_got_nowhere_may_be_corrected(
    annotations: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No annotations there, then a split that is not there, then right; a folder of other things is left alone."""
    out = tmp_path / "out"
    right = ["--source", "jsonl", "--annotations", str(annotations), "--out", str(out), "--num-processes", "1"]
    assert "no split named train, val" in complaint(
        caplog, "--source", "jsonl", "--annotations", str(tmp_path), "--out", str(out)
    )
    assert "test.jsonl: no such annotation file" in complaint(caplog, *right, "--splits", "test")
    main([*right, *ACCEPTING])
    assert (out / "report.md").exists()
    assert "holds something else" in complaint(caplog, *right[:-4], "--out", str(annotations))


def test_the_synthetic_source_is_rendered_and_prepared(tmp_path: Path) -> None:
    """Every task comes back as it was."""
    root = tmp_path / "videos"
    changes = [
        "num_videos={train: 1}",
        "size_px=32",
        "object_px=[8, 12]",
        "duration_sec=4",
        "max_interval_sec=3",
    ]
    command = ["--source", "synthetic", "--annotations", str(root), "--out", str(tmp_path / "out")]
    main([*command, "--num-processes", "1", *changes])
    read = prepared.load(PreparedSource(root=str(tmp_path / "out")), "train")
    assert read.samples == synthetic.load(SyntheticSource(root=str(root)), "train").samples
    assert {sample.task for sample in read.samples} == {"stvg", "temporal", "rec", "qa"}


# parts


def test_chunks_that_were_looked_at_are_not_looked_at_again(tmp_path: Path) -> None:
    """Stopped in the second chunk; then the first chunk's videos vanish, and its findings hold."""
    jobs = [VideoJob(str(tmp_path / f"{i}"), probe=False, decoder=None) for i in range(2 * VIDEOS_PER_CHUNK)]
    for job in jobs:
        Path(job.path).touch()

    def stop_at_second(number: int) -> Path:
        if number == 1:
            raise InterruptedError
        return tmp_path / f"chunk-{number}"

    with SturdyPool(1) as pool, pytest.raises(InterruptedError):
        look_at_all(jobs, chunk_path=stop_at_second, pool=pool, desc="")
    Path(jobs[0].path).unlink()
    Path(jobs[-1].path).unlink()
    with SturdyPool(1) as pool:
        found = look_at_all(jobs, chunk_path=lambda number: tmp_path / f"chunk-{number}", pool=pool, desc="")
    missing = Finding(jobs[-1].path, problem="missing", cause="no such file")
    assert [finding for finding in found.values() if finding.problem] == [missing]


def test_a_split_is_published_once(tmp_path: Path) -> None:
    """A second time, after a kill, does no harm."""
    folder = PreparedFolder(tmp_path)
    folder.finish_split("train", OF_EVERY_KIND, {"records": 6})
    for _ in range(2):
        folder.publish_split("train")
    assert list(read_samples(folder.data_path("train"))) == OF_EVERY_KIND


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("got 5 and 'x'", "got N and '...'"),
        ("expected 0 <= start < end, got start=14, end=-1.5e3", "expected N <= start < end, got start=N, end=N"),
        ("is missing", "is missing"),
    ],
)
def test_like_causes_are_one_reason(cause: str, expected: str) -> None:
    assert reason_of(cause) == expected


def test_vidstg_val_is_prepared(tmp_path: Path) -> None:
    """The published counts; read back, the samples are the same."""
    annotations = str(published("vidstg/val_annotations.json").parent)
    main(["--source", "vidstg", "--annotations", annotations, "--out", str(tmp_path / "out")])
    (split,) = report_of(tmp_path / "out").values()
    assert (split["records"], split["samples"]) == (3996, 8956)
    assert [row["samples"] for row in split["by_task"]] == [3996, 4960]
    assert (len(split["flags"]["duplicate"]), len(split["flags"]["record_touches_clip_end"])) == (239, 744)
    read = prepared.load(PreparedSource(root=str(tmp_path / "out")), "val")
    assert read.samples == vidstg.load(VidstgSource(annotations=annotations), "val").samples


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--source", "vidstg", "--annotations", "nowhere"], "annotations: no such folder: nowhere"),
        (["--source", "vidstg", "--annotations", ".", "--videos", "nowhere"], "videos: no such folder: nowhere"),
        (["--source", "vidstg", "--annotations", ".", "tracks=nowhere"], "tracks: no such folder: nowhere"),
    ],
)
def test_a_folder_that_is_not_there_is_no_empty_one(
    arguments: list[str], expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--out", str(tmp_path / "out")])
    assert expected in caplog.text
    assert not (tmp_path / "out").exists()
