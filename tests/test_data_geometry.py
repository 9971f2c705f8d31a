"""The arithmetic on boxes and spans, by hand, by property, and against torchvision."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.geometry import (
    box_area,
    box_between,
    box_cxcywh_to_xyxy,
    box_giou,
    box_iou,
    box_xyxy_to_cxcywh,
    boxes_in_pixels,
    normalize_boxes,
    normalize_boxes_by_size,
    span_iou,
    span_overlap,
    span_sec_to_frames,
)

WIDE_BOX = torch.tensor([0.1, 0.4, 0.9, 0.6])
NAN = float("nan")


def random_boxes(*shape: int, seed: int = 0) -> Tensor:
    """xyxy boxes in [0, 1], corners in order."""
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=-2).values
    return corners.flatten(-2)


@st.composite
def boxes(draw: st.DrawFn) -> Tensor:
    """An xyxy box in [0, 1] with sides of at least 1/1000, far above what float32 resolves."""
    left, top = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    right, bottom = draw(st.floats(left + 1e-3, 1.0)), draw(st.floats(top + 1e-3, 1.0))
    return torch.tensor([left, top, right, bottom])


@st.composite
def spans(draw: st.DrawFn) -> Tensor:
    """A span of whole frames, at least one long."""
    start = draw(st.integers(0, 1000))
    return torch.tensor([start, start + draw(st.integers(1, 1000))], dtype=torch.float32)


# Conversions.


def test_axis_order() -> None:
    """[left .1, top .4, right .9, bottom .6]: centre (.5, .5), width .9 - .1 = .8, height .6 - .4 = .2."""
    torch.testing.assert_close(box_xyxy_to_cxcywh(WIDE_BOX), torch.tensor([0.5, 0.5, 0.8, 0.2]))
    torch.testing.assert_close(box_cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.8, 0.2])), WIDE_BOX)


def test_conversions_round_trip() -> None:
    xyxy = random_boxes(3, 5)
    torch.testing.assert_close(box_cxcywh_to_xyxy(box_xyxy_to_cxcywh(xyxy)), xyxy)
    cxcywh = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(cxcywh)), cxcywh)


def test_conversions_match_torchvision() -> None:
    xyxy = random_boxes(20)
    expected = torchvision.ops.box_convert(xyxy, in_fmt="xyxy", out_fmt="cxcywh")
    torch.testing.assert_close(box_xyxy_to_cxcywh(xyxy), expected)


def test_normalize_divides_x_by_width_and_y_by_height() -> None:
    """640 x 360: (64, 144, 576, 216) -> (64/640, 144/360, 576/640, 216/360) = (.1, .4, .9, .6)."""
    torch.testing.assert_close(normalize_boxes(torch.tensor([64, 144, 576, 216]), width=640, height=360), WIDE_BOX)


def test_normalize_clips_to_the_image() -> None:
    """VidOR has boxes that stick out of the image."""
    boxes_px = torch.tensor([-10.0, -1.0, 700.0, 400.0])
    torch.testing.assert_close(normalize_boxes(boxes_px, width=640, height=360), torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_normalize_by_size_is_normalize_of_each_row() -> None:
    boxes_px, sizes_px = torch.tensor([[64.0, 144.0, 576.0, 216.0]] * 2), torch.tensor([[640.0, 360.0], [576.0, 432.0]])
    expected = [
        normalize_boxes(box, width=int(w), height=int(h)) for box, (w, h) in zip(boxes_px, sizes_px, strict=True)
    ]
    assert torch.equal(normalize_boxes_by_size(boxes_px, sizes_px), torch.stack(expected))


def test_pixels_by_hand() -> None:
    """A 200 x 100 px image; what lies outside stays outside."""
    box = torch.tensor([0.1, 0.2, 0.5, 1.5], dtype=torch.float64)
    assert boxes_in_pixels(box, torch.tensor([200.0, 100.0], dtype=torch.float64)).tolist() == [
        20.0,
        20.0,
        100.0,
        150.0,
    ]


@pytest.mark.parametrize(
    ("frame", "expected"), [(10, (0.0, 0.0, 4.0, 8.0)), (11, (1.0, 2.0, 5.0, 10.0)), (9, (0.0, 0.0, 4.0, 8.0)), (20, (4.0, 8.0, 8.0, 16.0))]
)  # fmt: skip
def test_a_box_between_two(frame: int, expected: tuple[float, ...]) -> None:
    """A quarter of the way from frame 10 to frame 14; beyond the last, the last."""
    assert box_between({10: (0.0, 0.0, 4.0, 8.0), 14: (4.0, 8.0, 8.0, 16.0)}, [10, 14], frame) == expected


def test_area() -> None:
    """.8 * .2 = .16; with left and right swapped, or both axes, 0."""
    torch.testing.assert_close(box_area(WIDE_BOX), torch.tensor(0.16))
    assert box_area(WIDE_BOX[[2, 1, 0, 3]]) == 0
    assert box_area(WIDE_BOX[[2, 3, 0, 1]]) == 0


# IoU and GIoU of boxes.


def test_box_iou_by_hand() -> None:
    """[0, 0, .4, .2] (area .08) and [.2, .1, .6, .3] (area .08) share .2 x .1 = .02: .02 / (.08 + .08 - .02) = 1/7.

    GIoU: the hull [0, 0, .6, .3] has .18, of which .18 - .14 = .04 is in neither: 1/7 - .04/.18 = 1/7 - 2/9.
    """
    a, b = torch.tensor([0.0, 0.0, 0.4, 0.2]), torch.tensor([0.2, 0.1, 0.6, 0.3])
    torch.testing.assert_close(box_iou(a, b), torch.tensor(1 / 7))
    torch.testing.assert_close(box_giou(a, b), torch.tensor(1 / 7 - 2 / 9))


def test_disjoint_boxes_by_hand() -> None:
    """Two .1 x .1 boxes in opposite corners of the unit square: IoU 0, GIoU 0 - (1 - .02) / 1 = -.98."""
    a, b = torch.tensor([0.0, 0.0, 0.1, 0.1]), torch.tensor([0.9, 0.9, 1.0, 1.0])
    assert box_iou(a, b) == 0
    torch.testing.assert_close(box_giou(a, b), torch.tensor(-0.98))


def test_touching_boxes() -> None:
    """Two halves of the unit square: nothing shared, nothing of the hull left over."""
    a, b = torch.tensor([0.0, 0.0, 0.5, 1.0]), torch.tensor([0.5, 0.0, 1.0, 1.0])
    assert box_iou(a, b) == 0
    torch.testing.assert_close(box_giou(a, b), torch.tensor(0.0))


def test_empty_boxes_give_zero_and_a_finite_gradient() -> None:
    """Padding is a box of zeros: 0, not 0/0."""
    empty = torch.zeros(2, 4, requires_grad=True)
    iou = box_iou(empty, torch.stack([torch.zeros(4), WIDE_BOX]))
    assert iou.tolist() == [0.0, 0.0]
    (iou.sum() + box_giou(empty, WIDE_BOX.expand(2, 4)).sum()).backward()
    assert empty.grad is not None and empty.grad.isfinite().all()


def test_reversed_box_overlaps_nothing() -> None:
    assert box_iou(WIDE_BOX[[2, 3, 0, 1]], WIDE_BOX) == 0


def test_box_iou_and_giou_match_torchvision() -> None:
    """Elementwise here, all pairs there: the diagonal."""
    a, b = random_boxes(200, seed=1), random_boxes(200, seed=2)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b).diagonal())
    torch.testing.assert_close(box_giou(a, b), torchvision.ops.generalized_box_iou(a, b).diagonal())


def test_box_iou_broadcasts() -> None:
    """[3, 1, 4] x [5, 4] -> [3, 5]: each pair as on its own."""
    a, b = random_boxes(3, 1, seed=1), random_boxes(5, seed=2)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a[:, 0], b))


@settings(deadline=None)
@given(boxes(), boxes())
def test_box_iou_properties(a: Tensor, b: Tensor) -> None:
    """In [0, 1], symmetric, 1 with itself; GIoU is in [-1, IoU]."""
    iou, giou = box_iou(a, b), box_giou(a, b)
    assert 0 <= iou <= 1 + 1e-6
    assert -1 - 1e-6 <= giou <= iou + 1e-6
    torch.testing.assert_close(iou, box_iou(b, a))
    torch.testing.assert_close(giou, box_giou(b, a))
    torch.testing.assert_close(box_iou(a, a), torch.tensor(1.0))
    torch.testing.assert_close(box_giou(a, a), torch.tensor(1.0))


# Spans.


@pytest.mark.parametrize(
    ("a", "b", "intersection", "union"),
    [
        ((100, 400), (60, 340), 240, 340),  # [100, 340) and [60, 400)
        ((100, 400), (150, 250), 100, 300),  # contained
        ((100, 400), (100, 400), 300, 300),
        ((100, 200), (200, 300), 0, 200),  # half-open: they touch and share nothing
        ((100, 200), (400, 500), 0, 200),  # the gap does not count
        ((0.5, 2.0), (1.0, 2.5), 1.0, 2.0),
    ],
)
def test_span_iou_by_hand(a: tuple[float, float], b: tuple[float, float], intersection: float, union: float) -> None:
    """tIoU = intersection / union."""
    a_2, b_2 = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    assert [value.item() for value in span_overlap(a_2, b_2)] == [intersection, union]
    torch.testing.assert_close(span_iou(a_2, b_2), torch.tensor(intersection / union))


def test_reversed_and_empty_spans_overlap_nothing() -> None:
    """Length 0, so the union is the other span's 4; two empty spans give 0, not 0/0."""
    wrong_B2 = torch.tensor([[5.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
    intersection_B, union_B = span_overlap(wrong_B2, torch.tensor([1.0, 5.0]))
    assert intersection_B.tolist() == [0.0, 0.0, 0.0]
    assert union_B.tolist() == [4.0, 4.0, 4.0]
    assert span_iou(wrong_B2, wrong_B2).tolist() == [0.0, 0.0, 0.0]


@settings(deadline=None)
@given(spans(), spans())
def test_span_iou_properties(a_2: Tensor, b_2: Tensor) -> None:
    """In [0, 1], symmetric, 1 with itself, and equal to counting frames in sets."""
    iou = span_iou(a_2, b_2)
    assert 0 <= iou <= 1
    assert iou == span_iou(b_2, a_2)
    assert span_iou(a_2, a_2) == 1
    a, b = (set(range(int(s[0]), int(s[1]))) for s in (a_2, b_2))
    assert iou.item() == pytest.approx(len(a & b) / len(a | b), rel=1e-6)


def test_span_sec_to_frames_rounds_and_adds_the_clip() -> None:
    """At 8 fps in a clip from frame 10: 2.0 s -> 16 + 10 = 26; 3.05 s -> 24.4 -> 24 + 10; 3.1 s -> 24.8 -> 25 + 10."""
    spans_sec = torch.tensor([[2.0, 3.05], [2.0, 3.1]])
    frames_B2 = span_sec_to_frames(
        spans_sec, fps_B=torch.tensor([8.0, 8.0]), clip_B2=torch.tensor([[10.0, 74.0], [10.0, 74.0]])
    )
    assert frames_B2.tolist() == [[26.0, 34.0], [26.0, 35.0]]


def test_span_sec_to_frames_is_cut_to_the_clip() -> None:
    """The clip [10, 74) at 8 fps is 8 s long: 7 .. 20 s ends at 74, 9 .. 20 s is empty, and a reversed one stays so."""
    spans_sec = torch.tensor([[7.0, 20.0], [9.0, 20.0], [5.0, 2.0]])
    clip_B2 = torch.tensor([[10.0, 74.0]]).expand(3, 2)
    frames_B2 = span_sec_to_frames(spans_sec, fps_B=torch.full((3,), 8.0), clip_B2=clip_B2)
    assert frames_B2.tolist() == [[66.0, 74.0], [74.0, 74.0], [50.0, 26.0]]
    assert span_iou(frames_B2, clip_B2).tolist() == [8 / 64, 0.0, 0.0]


def test_span_sec_to_frames_takes_each_rows_rate() -> None:
    """1 .. 2 s is [8, 16) at 8 fps and [30, 60) at 29.97 (29.97 and 59.94 rounded)."""
    frames_B2 = span_sec_to_frames(
        torch.tensor([[1.0, 2.0], [1.0, 2.0]]),
        fps_B=torch.tensor([8.0, 29.97]),
        clip_B2=torch.tensor([[0.0, 100.0], [0.0, 100.0]]),
    )
    assert frames_B2.tolist() == [[8.0, 16.0], [30.0, 60.0]]


def test_no_span_is_empty_and_scores_zero() -> None:
    """NaN stands for an answer that could not be parsed, even in a clip that does not start at 0."""
    frames_B2 = span_sec_to_frames(
        torch.tensor([[NAN, NAN]]), fps_B=torch.tensor([8.0]), clip_B2=torch.tensor([[10.0, 74.0]])
    )
    assert frames_B2.tolist() == [[0.0, 0.0]]
    assert span_iou(frames_B2, torch.tensor([[10.0, 74.0]])).item() == 0


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 3000), st.data())
def test_frames_to_seconds_and_back(clip_start: int, clip_length: int, data: st.DataObject) -> None:
    """Round trip: seconds of the clip, printed with three decimals, are the same frames again at 29.97 fps."""
    start = data.draw(st.integers(0, clip_length - 1))
    end = data.draw(st.integers(start + 1, clip_length))
    seconds = torch.tensor([[round(start / 29.97, 3), round(end / 29.97, 3)]])
    clip_B2 = torch.tensor([[clip_start, clip_start + clip_length]], dtype=torch.float32)
    frames_B2 = span_sec_to_frames(seconds, fps_B=torch.tensor([29.97]), clip_B2=clip_B2)
    assert frames_B2.tolist() == [[clip_start + start, clip_start + end]]
