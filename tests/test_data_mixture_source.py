"""A mixture's parts: loaded, named, and missed with their names."""

import logging
from pathlib import Path

import pytest

from configs.data import DataConfig
from configs.sources import CharadesStaSource, JsonlSource, MixturePart, MixtureSource, Source
from data.annotations import AnnotationError
from data.sources import load_samples
from data.sources.jsonl import write_samples
from data.types import FrameSpan, GroundingSample, Task

STVG = GroundingSample(
    sample_id="0", task="stvg", query="the dog", video_path="a.mp4", fps=8.0, width=64, height=48,
    clip=FrameSpan(0, 16), span=FrameSpan(2, 4), boxes_xyxy_px=((1.0, 2.0, 3.0, 4.0), None),
)  # fmt: skip
QA = GroundingSample(
    sample_id="1", task="qa", query="which?", video_path="a.mp4", fps=8.0, width=64, height=48,
    clip=FrameSpan(0, 16), options=("x", "y"), choice="A",
)  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, JsonlSource]:
    """`both` has train and test with an stvg and a qa sample of the same ids, `other` has val and train with stvg."""
    sources = {name: JsonlSource(root=str(tmp_path / name)) for name in ("both", "other")}
    for name, split, samples in (
        ("both", "train", [STVG, QA]),
        ("both", "test", [STVG, QA]),
        ("other", "val", [STVG]),
        ("other", "train", [STVG]),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        write_samples(tmp_path / name / f"{split}.jsonl", samples)
    return sources


def mixed(tasks: dict[Task, float] | None = None, **parts: MixturePart) -> DataConfig:
    return DataConfig(source=MixtureSource(parts=parts), tasks=tasks or {"stvg": 1.0, "qa": 1.0})


def test_ids_are_prefixed_and_the_source_is_the_part(folders: dict[str, JsonlSource]) -> None:
    """The same files twice: only the prefix tells their samples apart."""
    data = mixed(a=MixturePart(source=folders["both"]), b=MixturePart(source=folders["both"]))
    samples = load_samples(data, "train")
    assert [(s.sample_id, s.source) for s in samples] == [("a/0", "a"), ("a/1", "a"), ("b/0", "b"), ("b/1", "b")]
    assert samples[0].boxes_xyxy_px == STVG.boxes_xyxy_px


def test_splits_are_translated(folders: dict[str, JsonlSource]) -> None:
    """`validation` is `test` for one part, `val` for another, and a third has none; `train` has its own name."""
    data = mixed(
        a=MixturePart(source=folders["both"], splits={"validation": "test"}),
        b=MixturePart(source=folders["other"], splits={"validation": "val"}),
        c=MixturePart(source=folders["other"], splits={"validation": None}),
    )
    assert [s.sample_id for s in load_samples(data, "validation")] == ["a/0", "a/1", "b/0"]
    assert [s.sample_id for s in load_samples(data, "train")] == ["a/0", "a/1", "b/0", "c/0"]


@pytest.mark.parametrize(
    ("tasks", "part_tasks", "ids"),
    [
        ({"stvg": 1.0, "qa": 1.0}, None, ["a/0", "a/1"]),
        ({"stvg": 1.0, "qa": 1.0}, {"qa": 1.0}, ["a/1"]),
        ({"stvg": 1.0}, None, ["a/0"]),
        ({"stvg": 1.0}, {"stvg": 1.0, "qa": 1.0}, ["a/0"]),
        ({"stvg": 1.0, "rec": 1.0}, None, ["a/0"]),
    ],
)
def test_tasks_that_are_not_drawn_are_left_out(
    folders: dict[str, JsonlSource], tasks: dict[Task, float], part_tasks: dict[Task, float] | None, ids: list[str]
) -> None:
    """A task counts where both the part and `data.tasks` give it a weight."""
    data = mixed(tasks, a=MixturePart(source=folders["both"], tasks=part_tasks))
    assert [s.sample_id for s in load_samples(data, "train")] == ids


def test_a_part_that_is_not_drawn_is_not_read(folders: dict[str, JsonlSource]) -> None:
    absent = JsonlSource(root="absent")
    data = mixed(
        {"stvg": 1.0},
        a=MixturePart(source=folders["both"]),
        zero=MixturePart(source=absent, weight=0),
        only_qa=MixturePart(source=absent, tasks={"qa": 1.0}),
    )
    assert [s.sample_id for s in load_samples(data, "train")] == ["a/0"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (JsonlSource(root="absent"), r"absent/train.jsonl: no such annotation file \(part 'b' of the mixture\)"),
        (CharadesStaSource(annotations="absent"), r"absent: no such folder \(part 'b' of the mixture\)"),
        (
            CharadesStaSource(annotations=".", videos="absent_videos"),
            r"absent_videos: no such folder \(part 'b' of the mixture\)",
        ),
    ],
)
def test_missing_data_of_a_part(folders: dict[str, JsonlSource], source: Source, message: str) -> None:
    data = mixed(a=MixturePart(source=folders["both"]), b=MixturePart(source=source))
    with pytest.raises(AnnotationError, match=message):
        load_samples(data, "train")


@pytest.mark.parametrize("part_tasks", [{"qa": 1.0}, {"stvg": 1.0, "qa": 0.5}])
def test_a_named_task_without_samples_is_an_error(
    folders: dict[str, JsonlSource], part_tasks: dict[Task, float]
) -> None:
    """Its share would go to other tasks otherwise."""
    data = mixed(a=MixturePart(source=folders["both"]), b=MixturePart(source=folders["other"], tasks=part_tasks))
    with pytest.raises(
        AnnotationError, match=r"part 'b' of the mixture: no sample of \['qa'\]; its tasks are \['stvg'"
    ):
        load_samples(data, "train")


def test_a_bad_record_names_its_part(folders: dict[str, JsonlSource], caplog: pytest.LogCaptureFixture) -> None:
    """One line of `other` is spoiled: an error, or left out and counted among all 4 records."""
    file = Path(folders["other"].root) / "train.jsonl"
    file.write_text(file.read_text() + "{}\n")
    data = mixed(a=MixturePart(source=folders["both"]), b=MixturePart(source=folders["other"]))
    with pytest.raises(AnnotationError, match=r"train.jsonl, line 2.*\(part 'b' of the mixture\)"):
        load_samples(data, "train")
    with caplog.at_level(logging.WARNING):
        kept = load_samples(data.model_copy(update={"bad_records": "skip"}), "train")
    assert [s.sample_id for s in kept] == ["a/0", "a/1", "b/0"]
    assert "train: 1 of 4 records left out" in caplog.text


def test_a_part_of_bad_records_alone_is_an_error(folders: dict[str, JsonlSource]) -> None:
    (Path(folders["other"].root) / "train.jsonl").write_text("{}\n")
    data = mixed(a=MixturePart(source=folders["both"]), b=MixturePart(source=folders["other"]))
    with pytest.raises(AnnotationError, match=r"line 1.*\(part 'b' of the mixture\)"):
        load_samples(data.model_copy(update={"bad_records": "skip"}), "train")
