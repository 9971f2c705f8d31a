"""Annotation sources: rendered scenes are what their annotations say, and published layouts are read as published."""

import dataclasses
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.data import DataConfig
from configs.sources import JsonlSource, SyntheticSource, VidstgSource
from data.annotations import AnnotationError
from data.sources import load_samples
from data.sources.jsonl import read_samples, write_samples
from data.sources.synthetic import BACKGROUND, COLOURS, Shape, draw_scene, render
from data.types import FrameSpan, GroundingSample
from data.video import READERS

VIDSTG_VAL = Path(__file__).parents[2] / "shared" / "data" / "vidstg" / "val_annotations.json"


# synthetic


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSource:
    """Two or three shapes per video, rendered once."""
    config = SyntheticSource(
        root=str(tmp_path_factory.mktemp("scenes")), num_videos={"train": 10, "test": 4}, num_objects=(2, 3)
    )
    render(config)
    return config


@pytest.fixture(scope="module")
def single_shapes(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSource:
    """One shape per video (nothing hides it) and no noise, rendered once."""
    config = SyntheticSource(
        root=str(tmp_path_factory.mktemp("single")), num_videos={"train": 16}, num_objects=(1, 1), noise_std=0.0, seed=5
    )
    render(config)
    return config


def load_all(config: SyntheticSource, split: str = "train") -> list[GroundingSample]:
    tasks = {"stvg": 1.0, "temporal": 1.0, "rec": 1.0, "qa": 1.0}
    return load_samples(DataConfig(source=config, tasks=tasks), split)  # type: ignore[arg-type]


def by_shape(config: SyntheticSource) -> list[dict[str, GroundingSample]]:
    """The four samples of each shape, by task."""
    groups: dict[str, dict[str, GroundingSample]] = defaultdict(dict)
    for sample in load_all(config):
        groups[sample.sample_id.rsplit("-", 1)[0]][sample.task] = sample
    return list(groups.values())


def right_option(sample: GroundingSample) -> str:
    """What the shape of a qa sample does."""
    assert sample.choice is not None
    return sample.options["ABC".index(sample.choice)]


def decode(sample: GroundingSample) -> np.ndarray:
    """Every frame of the whole file."""
    frames, _ = READERS["pyav"](Path(sample.video_path), np.arange(64))
    return frames


def test_annotations_are_a_function_of_the_config(scenes: SyntheticSource, tmp_path: Path) -> None:
    """Another folder, another number of processes: the same bytes; another seed: others."""
    again = scenes.model_copy(update={"root": str(tmp_path / "again")})
    render(again, num_processes=1)
    other = scenes.model_copy(update={"root": str(tmp_path / "other"), "seed": 1, "num_videos": {"test": 4}})
    render(other)
    for split in scenes.num_videos:
        ours, theirs = ((Path(config.root) / f"{split}.jsonl").read_text() for config in (scenes, again))
        assert ours == theirs
    assert (tmp_path / "other" / "test.jsonl").read_text() != ours


def test_splits_differ(scenes: SyntheticSource) -> None:
    """Video 0 of train is not video 0 of test."""
    train, test = (load_all(scenes, split)[0] for split in ("train", "test"))
    assert train.boxes_xyxy_px != test.boxes_xyxy_px


def test_every_shape_gives_one_sample_of_each_task(scenes: SyntheticSource) -> None:
    samples = load_all(scenes)
    counts = Counter(sample.task for sample in samples)
    assert set(counts) == {"stvg", "temporal", "rec", "qa"} and len(set(counts.values())) == 1
    assert 2 * 10 <= counts["stvg"] <= 3 * 10
    assert len({sample.sample_id for sample in samples}) == len(samples)


def test_tasks_of_a_shape_agree(scenes: SyntheticSource) -> None:
    """temporal is stvg without boxes; rec is one frame of the same track; qa's right option is what stvg says."""
    for samples in by_shape(scenes):
        stvg, temporal, rec, qa = (samples[task] for task in ("stvg", "temporal", "rec", "qa"))
        assert (temporal.query, temporal.span, temporal.clip) == (stvg.query, stvg.span, stvg.clip)
        assert temporal.boxes_xyxy_px is None
        assert stvg.span and rec.span and stvg.boxes_xyxy_px and rec.boxes_xyxy_px
        assert rec.clip == rec.span and len(rec.clip) == 1
        assert rec.boxes_xyxy_px[0] == stvg.boxes_xyxy_px[rec.span.start - stvg.span.start]
        assert len(set(qa.options)) == 3
        assert stvg.query.removesuffix("?").endswith(right_option(qa))


def alpha_of(frame_HW3: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """How much of a colour each pixel holds: 0 at the background, 1 at the colour (its projection in between)."""
    background, towards = np.array(BACKGROUND, float), np.array(colour, float) - np.array(BACKGROUND, float)
    return (frame_HW3.astype(float) - background) @ towards / (towards @ towards)


def test_tracks_are_exact(single_shapes: SyntheticSource) -> None:
    """In the decoded file the shape fills its box: drawn pixels lie in it, and reach all four sides.

    Pixel x covers [x, x + 1). 1.5 px of room for half-covered pixels and H.264, 2 px for what is rounded off, 3 px for
    a triangle, whose corners are less than half a pixel wide before that.
    """
    for samples in by_shape(single_shapes):
        _, colour, shape = samples["rec"].query.split()
        stvg = samples["stvg"]
        assert stvg.span and stvg.boxes_xyxy_px
        frames = decode(stvg)
        for offset in range(0, len(stvg.span), 5):
            rows, columns = np.nonzero(alpha_of(frames[stvg.span.start + offset], COLOURS[colour]) > 0.5)
            drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            inwards = (drawn - np.array(stvg.boxes_xyxy_px[offset])) * [1, 1, -1, -1]
            assert (inwards >= -1.5).all(), (stvg.sample_id, offset, inwards)
            assert (inwards <= (3.0 if shape == "triangle" else 2.0)).all(), (stvg.sample_id, offset, shape, inwards)


def test_what_appears_is_visible_only_in_its_interval(single_shapes: SyntheticSource) -> None:
    """A shape that *appears* is drawn in exactly the frames of its span, one that *moves* in all 64."""
    actions = set()
    for samples in by_shape(single_shapes):
        action, span = right_option(samples["qa"]), samples["stvg"].span
        colour = COLOURS[samples["rec"].query.split()[1]]
        drawn_T = np.array([(alpha_of(frame, colour) > 0.5).any() for frame in decode(samples["stvg"])])
        assert span is not None
        expected = np.arange(span.start, span.end) if action == "appears" else np.arange(64)
        np.testing.assert_array_equal(np.flatnonzero(drawn_T), expected)
        actions.add(action == "appears")
    assert actions == {True, False}


def scene_shapes(num_videos: int = 200) -> list[list[Shape]]:
    """Many scenes of three shapes, drawn but not rendered."""
    config = SyntheticSource(root="unused", num_objects=(3, 3))
    return [draw_scene(config, np.random.default_rng([0, index])) for index in range(num_videos)]


def test_drawn_tracks_follow_the_scene_rules() -> None:
    """Boxes stay in the image; a *moves* shape stands still outside of its interval and keeps its direction inside."""
    axis_and_sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
    for shapes in scene_shapes():
        assert len({shape.name for shape in shapes}) == 3
        for shape in shapes:
            boxes_T4, span = shape.boxes_px_T4, shape.span
            assert boxes_T4.shape == (64, 4) and boxes_T4.min() >= -1e-9 and boxes_T4.max() <= 64 + 1e-9
            assert 16 <= len(span) <= 48 and span.end <= 64  # 2 to 6 s at 8 fps
            steps_T2 = np.diff(boxes_T4[:, :2], axis=0)
            assert np.abs(steps_T2[: span.start]).max(initial=0) == 0
            assert np.abs(steps_T2[span.end - 1 :]).max(initial=0) == 0
            if shape.verb == "moves":
                axis, sign = axis_and_sign[shape.direction]
                moving = steps_T2[span.start : span.end - 1]
                assert (moving[:, axis] * sign > 0).all()
                assert np.abs(moving[:, 1 - axis]).max() < 1e-9


def matches(query: str, shape: dict[str, str]) -> bool:
    """Whether a sentence of the source is true of a shape."""
    words = query.removesuffix("?").split()
    if words[0] == "the":
        return words[1:] == [shape["colour"], shape["shape"], *shape["action"].split()]
    if words[0] == "which":
        return words[1:] == [shape["colour"], "shape", *shape["action"].split()]
    return words == ["what", *shape["action"].split()]


def test_a_sentence_is_true_of_exactly_one_shape(scenes: SyntheticSource) -> None:
    """Names and actions of a video's shapes are read off its qa samples, its sentences off the stvg ones."""
    videos: dict[str, list[dict[str, GroundingSample]]] = defaultdict(list)
    for samples in by_shape(scenes):
        videos[samples["stvg"].video_path].append(samples)
    kinds = set()
    for members in videos.values():
        shapes = []
        for samples in members:
            _, colour, name = samples["rec"].query.split()
            shapes.append({"colour": colour, "shape": name, "action": right_option(samples["qa"])})
        sentences = [samples["stvg"] for samples in members]
        assert len({sentence.query for sentence in sentences}) == len(sentences) > 1
        for number, sentence in enumerate(sentences):
            assert [i for i, shape in enumerate(shapes) if matches(sentence.query, shape)] == [number]
            assert sentence.query.endswith("?") == (sentence.query_type == "interrogative")
            kinds.add(sentence.query_type)
    assert kinds == {"declarative", "interrogative"}


def test_loading_before_rendering_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train\.jsonl: not rendered yet; run python -m data\.prepare"):
        load_all(SyntheticSource(root=str(tmp_path)))


# jsonl


def make_samples(folder: Path) -> list[GroundingSample]:
    """One of each task."""
    stvg = GroundingSample(
        sample_id="v1-0",
        task="stvg",
        query='the "röd" circle',
        video_path=str(folder / "train" / "v1.mp4"),
        fps=29.97,
        width=64,
        height=48,
        clip=FrameSpan(10, 64),
        query_type="interrogative",
        span=FrameSpan(12, 15),
        boxes_xyxy_px=((3.0, 4.0, 20.125, 21.0), None, (3.5, 4.0, 20.0, 21.0)),
    )
    moment = FrameSpan(12, 13)
    return [
        stvg,
        dataclasses.replace(stvg, sample_id="v1-1", task="temporal", boxes_xyxy_px=None),
        dataclasses.replace(
            stvg, sample_id="v1-2", task="rec", clip=moment, span=moment, boxes_xyxy_px=((1.0, 2.0, 3.0, 4.0),)
        ),
        dataclasses.replace(
            stvg, sample_id="v1-3", task="qa", span=None, boxes_xyxy_px=None, options=("x", "y"), choice="B"
        ),
        dataclasses.replace(stvg, sample_id="v2-0", video_path="/elsewhere/v2.mp4"),
    ]


def test_jsonl_round_trip(tmp_path: Path) -> None:
    samples = make_samples(tmp_path)
    write_samples(tmp_path / "train.jsonl", samples)
    assert read_samples(tmp_path / "train.jsonl") == samples
    write_samples(tmp_path / "none.jsonl", [])
    assert read_samples(tmp_path / "none.jsonl") == []


def test_jsonl_folder_can_be_moved(tmp_path: Path) -> None:
    """Paths inside of the folder are written relative to it, others as they are."""
    (tmp_path / "old").mkdir()
    write_samples(tmp_path / "old" / "train.jsonl", make_samples(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_samples(tmp_path / "new" / "train.jsonl") == make_samples(tmp_path / "new")


def test_jsonl_reads_its_documented_record(tmp_path: Path) -> None:
    """The record of the module's docstring, shortened to two frames; `task` may be left out."""
    (tmp_path / "train.jsonl").write_text(
        '{"sample_id": "v0001-0", "query": "the red circle", "query_type": "declarative",\t'
        '"video_path": "train/v0001.mp4", "fps": 8.0, "width": 64, "height": 64, "clip": [0, 64], "span": [12, 14], '
        '"boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], null]}\n\n'
    )
    (sample,) = load_samples(DataConfig(source=JsonlSource(root=str(tmp_path))), "train")
    assert sample.task == "stvg"
    assert sample.video_path == str(tmp_path / "train" / "v0001.mp4")
    assert sample.boxes_xyxy_px == ((3.0, 4.0, 20.0, 21.0), None)
    assert sample.span_sec == (12 / 8, 14 / 8)


RECORD: dict[str, Any] = {
    "sample_id": "v1",
    "task": "stvg",
    "query": "the red circle",
    "video_path": "v1.mp4",
    "fps": 8.0,
    "width": 64,
    "height": 64,
    "clip": [0, 64],
    "span": [12, 14],
    "boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0], None],
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spam": 1}, "field spam: is not a field of a sample"),
        ({"span": [14, 12]}, "expected 0 <= start < end"),
        ({"span": [12, 12]}, "expected 0 <= start < end"),
        ({"span": [12, 65]}, "is not inside the clip"),
        ({"span": None}, "boxes without a span"),
        ({"boxes_xyxy_px": [[3.0, 4.0, 20.0, 21.0]]}, "expected one box .* per frame of the span, 2, got 1"),
        ({"boxes_xyxy_px": None}, "expected one box"),
        ({"task": "rec"}, "expected a clip of one frame"),
        ({"task": "qa", "choice": "C", "options": ["x", "y"]}, "choice 'C' is not one of"),
        ({"query": " "}, "the query is empty"),
        ({"fps": 0.0}, "expected a positive fps"),
        ({"fps": "8"}, "not supported"),
    ],
)
def test_jsonl_names_file_and_line(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    """A bad third line, after a good one and an empty one."""
    path = tmp_path / "train.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n\n{json.dumps(RECORD | change)}\n")
    with pytest.raises(AnnotationError, match=expected) as caught:
        read_samples(path)
    assert f"{path}, line 3" in str(caught.value)


def test_jsonl_question_without_an_answer(tmp_path: Path) -> None:
    """Neither span nor boxes: it can be asked; its true interval is an error that names it."""
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({key: value for key, value in RECORD.items() if key not in ("span", "boxes_xyxy_px")}))
    (sample,) = read_samples(path)
    assert sample.span is None and sample.boxes_xyxy_px is None
    with pytest.raises(ValueError, match=r"'v1' \(stvg\) has no span"):
        _ = sample.span_sec


@pytest.mark.parametrize("line", ["{bad", "[1]", "5", "{}"])
def test_jsonl_line_that_is_no_record(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(AnnotationError, match="line 1"):
        read_samples(path)


def test_missing_jsonl_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"test\.jsonl: no such annotation file"):
        load_samples(DataConfig(source=JsonlSource(root=str(tmp_path))), "test")


def test_load_samples_keeps_weighted_tasks(tmp_path: Path) -> None:
    """Weight 0 or none leaves a task out; nothing left is an error that says which tasks there are."""
    write_samples(tmp_path / "train.jsonl", make_samples(tmp_path))
    source = JsonlSource(root=str(tmp_path))
    kept = load_samples(DataConfig(source=source, tasks={"stvg": 0.0, "qa": 1.0, "rec": 2.0}), "train")
    assert [sample.task for sample in kept] == ["rec", "qa"]
    with pytest.raises(AnnotationError, match="its tasks are"):
        load_samples(DataConfig(source=source, tasks={"stvg": 0.0}), "train")


# vidstg


VIDSTG_RECORD: dict[str, Any] = {
    "vid": "10712559773",
    "fps": 29.97,
    "frame_count": 596,
    "width": 640,
    "height": 360,
    "used_segment": {"begin_fid": 496, "end_fid": 595},
    "temporal_gt": {"begin_fid": 510, "end_fid": 556},
    "captions": [
        {
            "description": "the child in red clothes and black pants is watching the ball.",
            "type": "person",
            "target_id": 2,
        }
    ],
    "questions": [{"description": "what is the child watching?", "type": "object", "target_id": 7}],
    "subject/objects": [{"tid": 2, "category": "child"}, {"tid": 7, "category": "ball/sports_ball"}],
    "used_relation": {"subject_tid": 2, "object_tid": 7, "predicate": "watch", "begin_fid": 510, "end_fid": 556},
}


def write_vidstg(folder: Path, records: list[dict[str, Any]], split: str = "val") -> VidstgSource:
    """Annotations in VidSTG's layout and the source that reads them."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "annotations" / f"{split}_annotations.json").write_text(json.dumps(records))
    return VidstgSource(
        annotations=str(folder / "annotations"), tracks=str(folder / "tracks"), videos=str(folder / "videos")
    )


def write_tracks(source: VidstgSource, video: str, trajectories: list[list[dict[str, Any]]]) -> None:
    """A track file in VidOR's layout."""
    path = Path(source.tracks) / "training" / "0042" / f"{video}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"video_path": f"0042/{video}.mp4", "trajectories": trajectories}))


def entry(tid: int, left: float) -> dict[str, Any]:
    """An object at [left, 75, left + 100, 262]."""
    return {"tid": tid, "bbox": {"xmin": left, "ymin": 75, "xmax": left + 100, "ymax": 262}, "generated": 0}


def test_vidstg_literal_record(tmp_path: Path) -> None:
    """used_segment 496 .. 595 is inclusive: the clip is [496, 596). temporal_gt 510 .. 556 is exclusive: 46 frames.

    Times are from the clip's start: (510 - 496) / 29.97 and (556 - 496) / 29.97. In frame f, tid 2 stands at x = f
    and tid 7 at f + 1, listed first; tid 2 is missing in frame 520.
    """
    source = write_vidstg(tmp_path, [VIDSTG_RECORD])
    trajectories = [[entry(7, f + 1)] + ([entry(2, f)] if f != 520 else []) for f in range(596)]
    write_tracks(source, "10712559773", trajectories)
    caption, question = load_samples(DataConfig(source=source), "val")

    assert (caption.query_type, question.query_type) == ("declarative", "interrogative")
    assert caption.query == "the child in red clothes and black pants is watching the ball."
    assert question.query == "what is the child watching?"
    assert caption.video_path == str(tmp_path / "videos" / "0042" / "10712559773.mp4")
    assert caption.sample_id != question.sample_id
    for sample in (caption, question):
        assert (sample.task, sample.fps, sample.width, sample.height) == ("stvg", 29.97, 640, 360)
        assert sample.clip == FrameSpan(496, 596)
        assert sample.span == FrameSpan(510, 556)
        assert sample.span_sec == pytest.approx((14 / 29.97, 60 / 29.97))
        assert sample.boxes_xyxy_px is not None and len(sample.boxes_xyxy_px) == 46
    assert caption.boxes_xyxy_px == tuple(None if f == 520 else (f, 75, f + 100, 262) for f in range(510, 556))
    assert question.boxes_xyxy_px == tuple((f + 1, 75, f + 101, 262) for f in range(510, 556))


def test_vidstg_span_may_end_with_the_clip(tmp_path: Path) -> None:
    """temporal_gt.end_fid == used_segment.end_fid + 1, as in 744 records of val: both end at frame 596."""
    record = VIDSTG_RECORD | {"temporal_gt": {"begin_fid": 496, "end_fid": 596}}
    source = write_vidstg(tmp_path, [record])
    write_tracks(source, "10712559773", [[entry(2, f), entry(7, f)] for f in range(596)])
    sample = load_samples(DataConfig(source=source), "val")[0]
    assert sample.span == sample.clip == FrameSpan(496, 596)


def test_vidstg_missing_files_are_named(tmp_path: Path) -> None:
    source = write_vidstg(tmp_path, [VIDSTG_RECORD])
    with pytest.raises(AnnotationError, match=r"expected training/\*/10712559773\.json or validation") as caught:
        load_samples(DataConfig(source=source), "val")
    assert source.tracks in str(caught.value)
    with pytest.raises(AnnotationError, match=r"test_annotations\.json: no such annotation file"):
        load_samples(DataConfig(source=source), "test")


@pytest.mark.skipif(not VIDSTG_VAL.exists(), reason="shared/data is not here")
def test_vidstg_published_annotations(tmp_path: Path) -> None:
    """The first 20 records of VidSTG val on made-up tracks: every record has one caption and its questions.

    The target stands at x = tid in every frame, so its boxes tell whose track was read.
    """
    records = json.loads(VIDSTG_VAL.read_text())[:20]
    source = write_vidstg(tmp_path, records)
    targets: dict[str, set[int]] = defaultdict(set)
    for record in records:
        targets[record["vid"]] |= {s["target_id"] for s in record["captions"] + record["questions"]}
    for record in records:
        present = [entry(tid, tid) for tid in sorted(targets[record["vid"]])]
        write_tracks(source, record["vid"], [present] * record["frame_count"])
    samples = load_samples(DataConfig(source=source), "val")

    assert len(samples) == sum(len(record["captions"]) + len(record["questions"]) for record in records)
    assert sum(sample.query_type == "declarative" for sample in samples) == 20
    assert (samples[0].clip, samples[0].span) == (FrameSpan(496, 596), FrameSpan(510, 556))
    expected_tids = [s["target_id"] for record in records for s in record["captions"] + record["questions"]]
    for sample, tid in zip(samples, expected_tids, strict=True):
        assert set(sample.boxes_xyxy_px or ()) == {(tid, 75, tid + 100, 262)}
    frame_counts = {record["vid"]: record["frame_count"] for record in records}
    assert all(sample.clip.end <= frame_counts[Path(sample.video_path).stem] for sample in samples)
