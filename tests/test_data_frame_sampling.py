"""Frame choice: rates, bounds and draws."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.frame_sampling import choose_training_frames, frames_in_span, sample_frames
from data.types import FrameSpan
from data.video import READERS, read_clip
from scripts.export import sampling_of_card


def test_sample_frames_at_a_rate_that_divides() -> None:
    """3 s at 8 fps sampled at 2 fps: 24 / (8 / 2) = 6 frames, one every 4."""
    frames = sample_frames(FrameSpan(10, 34), fps=8.0, sample_fps=2.0, max_frames=64)
    np.testing.assert_array_equal(frames, [10, 14, 18, 22, 26, 30])


def test_sample_frames_at_a_rate_that_does_not_divide() -> None:
    """29.97 fps sampled at 2 fps: step 14.985, so frames floor(14.985 i) = 0, 14, 29, 44, 59, 74, 89 below 100."""
    frames = sample_frames(FrameSpan(496, 596), fps=29.97, sample_fps=2.0, max_frames=64)
    np.testing.assert_array_equal(frames - 496, [0, 14, 29, 44, 59, 74, 89])


def test_sample_frames_never_repeats_a_frame() -> None:
    """Asking for more than the video has gives every frame once."""
    frames = sample_frames(FrameSpan(5, 10), fps=4.0, sample_fps=30.0, max_frames=64)
    np.testing.assert_array_equal(frames, [5, 6, 7, 8, 9])


def test_sample_frames_spreads_max_frames() -> None:
    """20 s at 10 fps sampled at 2 fps would be 40 frames; 8 are spread 200 / 8 = 25 apart."""
    frames = sample_frames(FrameSpan(0, 200), fps=10.0, sample_fps=2.0, max_frames=8)
    np.testing.assert_array_equal(frames, np.arange(8) * 25)


def test_sample_frames_gives_a_short_clip_two() -> None:
    """A quarter second at 8 fps is 2 frames: half a sample at 2 fps, but one temporal patch needs both."""
    np.testing.assert_array_equal(sample_frames(FrameSpan(7, 9), fps=8.0, sample_fps=2.0, max_frames=64), [7, 8])


def test_sample_frames_of_a_single_frame() -> None:
    np.testing.assert_array_equal(sample_frames(FrameSpan(7, 8), fps=8.0, sample_fps=2.0, max_frames=64), [7])


@settings(deadline=None)
@given(
    start=st.integers(0, 5000),
    length=st.integers(1, 3000),
    fps=st.sampled_from([1.0, 8.0, 10.0, 12.0, 15.0, 23.976, 24.0, 25.0, 29.97, 30000 / 1001, 60.0])
    | st.floats(0.5, 120.0),
    sample_fps=st.sampled_from([0.5, 1.0, 2.0, 4.0, 30.0]) | st.floats(0.1, 60.0),
    max_frames=st.integers(2, 256),
)
def test_sample_frames_properties(start: int, length: int, fps: float, sample_fps: float, max_frames: int) -> None:
    """Ascending, unique, inside of the clip, from its first frame on, and as many as the rate and the bounds say."""
    clip = FrameSpan(start, start + length)
    frames = sample_frames(clip, fps=fps, sample_fps=sample_fps, max_frames=max_frames)
    assert frames[0] == start
    assert (np.diff(frames) > 0).all()
    assert frames[-1] < clip.end
    assert min(2, length) <= len(frames) <= min(max_frames, length)
    wanted = length * min(1.0, sample_fps / fps)
    if 2 <= wanted <= max_frames:
        assert wanted - 1e-6 <= len(frames) < wanted + 1


@pytest.mark.parametrize(
    ("clip", "num_frames", "expected"),
    [
        ((10, 20), 4, [10, 13, 16, 19]),  # 9 steps in 3 gaps
        ((0, 100), 3, [0, 49, 99]),  # 99 / 2 = 49.5, rounded down
        ((5, 9), 4, [5, 6, 7, 8]),
        ((5, 8), 64, [5, 6, 7]),  # no more than there are
        ((7, 8), 64, [7]),
        ((0, 1000), 2, [0, 999]),
    ],
)
def test_a_fixed_number_of_frames_has_both_ends(clip: tuple[int, int], num_frames: int, expected: list[int]) -> None:
    """Whatever the rates and max_frames, which belong to the other rule."""
    frames = sample_frames(FrameSpan(*clip), fps=30.0, sample_fps=2.0, max_frames=2, num_frames=num_frames)
    assert frames.tolist() == expected


@given(start=st.integers(0, 5000), length=st.integers(2, 3000), num_frames=st.integers(2, 256))
def test_a_fixed_number_of_frames_properties(start: int, length: int, num_frames: int) -> None:
    """Ascending, unique, both ends; gaps differ by at most one frame."""
    clip = FrameSpan(start, start + length)
    frames = sample_frames(clip, fps=30.0, sample_fps=2.0, max_frames=64, num_frames=num_frames)
    assert len(frames) == min(num_frames, length)
    assert (frames[0], frames[-1]) == (start, clip.end - 1)
    gaps = np.diff(frames)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("num_frames", [2, 3, 7, 16, 32, 50, 64, 100, 128])
def test_a_fixed_number_of_frames_is_stcats_choice(num_frames: int) -> None:
    """Their list for every length up to 700 frames, and the one of the card of an export (scripts/export.py)."""
    on_card = sampling_of_card({"num_frames": num_frames})["choose_frames"].removeprefix("frame_idx = ")
    for length in range(2, 701):
        ids = list(range(5, 5 + length))
        if length > num_frames:
            ids = [ids[int(x)] for x in np.linspace(0, len(ids) - 1, num_frames)]
        frames = sample_frames(FrameSpan(5, 5 + length), fps=30.0, sample_fps=2.0, max_frames=2, num_frames=num_frames)
        assert frames.tolist() == ids
        assert (eval(on_card, {"np": np, "video": range(length)}) + 5).tolist() == ids


def test_a_fixed_number_of_frames_keeps_linspaces_rounding_errors() -> None:
    """63 gaps of 153 / 63 = 17 / 7: step 7 i is at frame 17 i, which int() of a float just below turns into 17 i - 1."""
    frames = sample_frames(FrameSpan(0, 154), fps=30.0, sample_fps=2.0, max_frames=2, num_frames=64)
    exact = np.arange(64) * 153 // 63
    assert (frames != exact).any() and set((exact - frames).tolist()) == {0, 1}


def test_frames_of_a_variable_rate_are_chosen_by_index(tmp_path: Path) -> None:
    """Frames at 0, .1, .2, .3 s and then at 1, 2, 3, 4 s: 8 frames in 4.5 s or so, a mean rate of 2 a second. At one
    frame a second every other frame is taken, four of the eight; where that is accepted, the model reads the times that
    they have."""
    times_sec = [0.0, 0.1, 0.2, 0.3, 1.0, 2.0, 3.0, 4.0]
    path = tmp_path / "variable.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for time_sec in times_sec:
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(10 * time_sec), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = FrameSpan(0, 8)
    frame_idx_T = sample_frames(clip, fps=2.0, sample_fps=1.0, max_frames=64)
    assert frame_idx_T.tolist() == [0, 2, 4, 6]
    decoded = read_clip(path, clip, frame_idx_T, fps=2.0, read=READERS["pyav"], variable_frame_rate="accept")
    np.testing.assert_allclose(decoded.times_sec_T, [0.0, 0.2, 1.0, 3.0], atol=1e-3)


def test_frames_in_span() -> None:
    """Of frames 0, 4, ..., 20 the half-open span [4, 12) holds 4 and 8, not 12."""
    frame_idx_T = np.arange(0, 24, 4)
    np.testing.assert_array_equal(frames_in_span(frame_idx_T, FrameSpan(4, 12)), [1, 2])
    np.testing.assert_array_equal(frames_in_span(frame_idx_T, FrameSpan(4, 13)), [1, 2, 3])
    np.testing.assert_array_equal(frames_in_span(frame_idx_T, FrameSpan(0, 24)), np.arange(6))


@pytest.mark.parametrize(("span", "nearest"), [((5, 7), 1), ((6, 8), 2), ((21, 40), 5)])
def test_frames_in_span_between_two_frames(span: tuple[int, int], nearest: int) -> None:
    """Frames 5, 6 have their middle 5.5 next to 4; 6, 7 have 6.5 next to 8; beyond the last frame it is the last."""
    np.testing.assert_array_equal(frames_in_span(np.arange(0, 24, 4), FrameSpan(*span)), [nearest])


POSITIVE_T = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)


def draw(seed: int, *, num_positive: int, num_negative: int, positive_T: np.ndarray = POSITIVE_T) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return choose_training_frames(
        positive_T, ~positive_T, num_positive=num_positive, num_negative=num_negative, rng=rng
    )


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "positives", "negatives"),
    [(3, 2, 3, 2), (4, 6, 4, 6), (9, 9, 4, 6), (1, 0, 1, 0), (0, 0, 0, 0)],
)
def test_choose_training_frames_counts(num_positive: int, num_negative: int, positives: int, negatives: int) -> None:
    """4 positives and 6 negatives are there; no more than those can be drawn, and none twice."""
    for seed in range(20):
        frames = draw(seed, num_positive=num_positive, num_negative=num_negative)
        assert POSITIVE_T[frames.astype(int)].sum() == positives
        assert len(frames) == positives + negatives
        assert (np.diff(frames) > 0).all()


def test_choose_training_frames_is_a_function_of_the_seed() -> None:
    first = [draw(seed, num_positive=2, num_negative=2) for seed in range(20)]
    again = [draw(seed, num_positive=2, num_negative=2) for seed in range(20)]
    np.testing.assert_array_equal(first, again)
    assert len({tuple(frames) for frames in first}) > 1


def test_choose_training_frames_reaches_every_frame() -> None:
    seen = {int(frame) for seed in range(100) for frame in draw(seed, num_positive=1, num_negative=1)}
    assert seen == set(range(10))


def test_choose_training_frames_without_positives() -> None:
    frames = draw(0, num_positive=3, num_negative=2, positive_T=np.zeros(10, dtype=bool))
    assert len(frames) == 2 and set(frames) <= set(range(10))
    assert len(draw(0, num_positive=3, num_negative=2, positive_T=np.zeros(0, dtype=bool))) == 0


@pytest.mark.parametrize(("num_negative", "expected"), [(0, 3), (2, 3), (100, 3)])
def test_choose_training_frames_without_negatives(num_negative: int, expected: int) -> None:
    """The span covers every sampled frame: positives are not drawn in the negatives' place."""
    frames = draw(0, num_positive=3, num_negative=num_negative, positive_T=np.ones(10, dtype=bool))
    assert len(frames) == len(set(frames.tolist())) == expected


def test_choose_training_frames_of_a_single_frame() -> None:
    """An image: its one frame is the positive."""
    assert draw(0, num_positive=6, num_negative=2, positive_T=np.ones(1, dtype=bool)).tolist() == [0]


@given(
    mask=st.lists(st.booleans(), max_size=40),
    num_positive=st.integers(0, 50),
    num_negative=st.integers(0, 50),
    seed=st.integers(0, 9),
)
def test_choose_training_frames_properties(mask: list[bool], num_positive: int, num_negative: int, seed: int) -> None:
    """As many of each kind as are asked for and there, none twice, ascending."""
    positive_T = np.array(mask, dtype=bool)
    frames = draw(seed, num_positive=num_positive, num_negative=num_negative, positive_T=positive_T)
    inside = positive_T[frames.astype(int)]
    assert inside.sum() == min(num_positive, positive_T.sum())
    assert (~inside).sum() == min(num_negative, (~positive_T).sum())
    assert (np.diff(frames) > 0).all()
