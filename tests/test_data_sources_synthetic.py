"""Source `synthetic`: rendered scenes are what their annotations say."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from configs.data import DataConfig
from configs.sources import SyntheticSource
from data.annotations import AnnotationError
from data.sources import load_samples
from data.sources.synthetic import BACKGROUND, COLOURS, Shape, draw_scene, render
from data.types import GroundingSample
from data.video import READERS


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
