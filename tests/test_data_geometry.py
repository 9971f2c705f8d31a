"""The arithmetic on boxes, spans and tubes, by hand, by property, and against published evaluators."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data.geometry import (
    box_area,
    box_cxcywh_to_xyxy,
    box_giou,
    box_iou,
    box_xyxy_to_cxcywh,
    gt_tube_iou,
    interpolate_tube,
    normalize_boxes,
    span_iou,
    span_overlap,
    span_sec_to_frames,
    tube_viou,
)

GOLDEN_VECTORS = Path(__file__).parents[2] / "shared" / "data" / "golden_vectors.json"
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


# Tubes.


def moving_box(left_T: Tensor) -> Tensor:
    """[B, T] -> [B, T, 4]: boxes of size .2 x .1 whose left side is given."""
    top_T = torch.full_like(left_T, 0.3)
    return torch.stack([left_T, top_T, left_T + 0.2, top_T + 0.1], dim=-1)


def test_interpolate_tube_by_hand() -> None:
    """Lefts .1, .3, .7 at 1, 2, 4 s. At 1.5 s .2, at 2.5 s .3 + (.5 / 2) * .4 = .4, at 3 s .5, at a sample itself
    it; before 1 s and after 4 s the ends are held."""
    times_BT = torch.tensor([[1.0, 2.0, 4.0]])
    boxes_BT4 = moving_box(torch.tensor([[0.1, 0.3, 0.7]]))
    query_BF = torch.tensor([[0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 9.0]])
    expected_BF4 = moving_box(torch.tensor([[0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.7]]))
    valid_BT = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(interpolate_tube(boxes_BT4, times_BT, valid_BT, query_BF), expected_BF4)


def test_interpolate_tube_reads_only_the_masked_run() -> None:
    """Only the samples at 1 and 2 s are valid: .3 at 1 s to .5 at 2 s, held at both ends, whatever lies beside."""
    times_BT = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    boxes_BT4 = moving_box(torch.tensor([[NAN, 0.3, 0.5, NAN]]))
    valid_BT = torch.tensor([[False, True, True, False]])
    query_BF = torch.tensor([[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]])
    expected_BF4 = moving_box(torch.tensor([[0.3, 0.3, 0.3, 0.4, 0.5, 0.5, 0.5]]))
    torch.testing.assert_close(interpolate_tube(boxes_BT4, times_BT, valid_BT, query_BF), expected_BF4)


def test_interpolate_tube_with_a_single_valid_box_holds_it() -> None:
    boxes_BT4 = moving_box(torch.tensor([[0.1, 0.3, 0.7]]))
    valid_BT = torch.tensor([[False, True, False]])
    tube_BF4 = interpolate_tube(boxes_BT4, torch.tensor([[1.0, 2.0, 4.0]]), valid_BT, torch.tensor([[0.0, 2.0, 3.0]]))
    torch.testing.assert_close(tube_BF4, boxes_BT4[:, 1:2].expand(1, 3, 4))


def test_interpolate_tube_without_a_valid_box_gives_zeros() -> None:
    """Rows beside it are as they would be on their own."""
    boxes_BT4 = moving_box(torch.tensor([[0.1, 0.3], [0.1, 0.3]]))
    times_BT = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    valid_BT = torch.tensor([[False, False], [True, True]])
    tube_BF4 = interpolate_tube(boxes_BT4, times_BT, valid_BT, torch.tensor([[0.5], [0.5]]))
    assert tube_BF4[0].eq(0).all()
    torch.testing.assert_close(tube_BF4[1:], moving_box(torch.tensor([[0.2]])))


def random_tubes(num_rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes, ascending times, runs of valid boxes (row 0: none) and query times."""
    generator = torch.Generator().manual_seed(5)
    times_BT = torch.rand(num_rows, 7, generator=generator).cumsum(dim=1)
    position_T = torch.arange(7)
    first_B1 = torch.randint(0, 4, (num_rows, 1), generator=generator)
    length_B1 = torch.randint(1, 5, (num_rows, 1), generator=generator)
    length_B1[0] = 0
    valid_BT = (position_T >= first_B1) & (position_T < first_B1 + length_B1)
    return random_boxes(num_rows, 7, seed=6), times_BT, valid_BT, torch.rand(num_rows, 9, generator=generator) * 5


def test_interpolate_tube_batched_equals_single() -> None:
    boxes_BT4, times_BT, valid_BT, query_BF = random_tubes(6)
    batched = interpolate_tube(boxes_BT4, times_BT, valid_BT, query_BF)
    for b in range(6):
        row = slice(b, b + 1)
        single = interpolate_tube(boxes_BT4[row], times_BT[row], valid_BT[row], query_BF[row])
        torch.testing.assert_close(batched[row], single)


def test_interpolate_tube_padding_invariant() -> None:
    """Padding at the end (later times, not valid, any boxes) and more query times change nothing."""
    boxes_BT4, times_BT, valid_BT, query_BF = random_tubes(6)
    padded = interpolate_tube(
        torch.cat([boxes_BT4, torch.full((6, 3, 4), NAN)], dim=1),
        torch.cat([times_BT, times_BT[:, -1:] + torch.arange(3)], dim=1),
        torch.cat([valid_BT, torch.zeros(6, 3, dtype=torch.bool)], dim=1),
        torch.cat([query_BF, torch.zeros(6, 2)], dim=1),
    )
    torch.testing.assert_close(padded[:, :9], interpolate_tube(boxes_BT4, times_BT, valid_BT, query_BF))


def test_interpolate_tube_gradient_equals_finite_differences() -> None:
    """Linear in the boxes, so differences are exact up to rounding; boxes outside of the run get 0."""
    boxes_BT4, times_BT, valid_BT, query_BF = random_tubes(4)
    boxes_BT4 = boxes_BT4.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda b: interpolate_tube(b, times_BT.double(), valid_BT, query_BF.double()), (boxes_BT4,)
    )
    interpolate_tube(boxes_BT4, times_BT.double(), valid_BT, query_BF.double()).sum().backward()
    assert boxes_BT4.grad is not None
    assert boxes_BT4.grad[~valid_BT].eq(0).all() and boxes_BT4.grad[valid_BT].ne(0).any()


def test_interpolate_tube_of_nothing() -> None:
    """No rows, and no query times."""
    boxes_BT4, times_BT, valid_BT, query_BF = random_tubes(2)
    assert interpolate_tube(boxes_BT4[:0], times_BT[:0], valid_BT[:0], query_BF[:0]).shape == (0, 9, 4)
    assert interpolate_tube(boxes_BT4, times_BT, valid_BT, query_BF[:, :0]).shape == (2, 0, 4)


def test_tube_viou_by_hand() -> None:
    """True span [10, 14), predicted [12, 18): frames 12, 13 are in both, 10 .. 17 (8 frames) in either.

    IoU there: frame 12 is exact (1), frame 13 covers half (1/2) -> (1 + 1/2) / 8 = 3/16. Boxes at 10 and 11 are exact
    but outside of the predicted span. Mean over the true frames, whatever the span: (1 + 1 + 1 + 1/2) / 4 = 7/8.
    """
    gt_BF4 = torch.tensor([0.0, 0.0, 0.4, 0.4]).expand(1, 4, 4)
    pred_BF4 = gt_BF4.clone()
    pred_BF4[0, 3] = torch.tensor([0.0, 0.0, 0.2, 0.4])
    has_box_BF = torch.ones(1, 4, dtype=torch.bool)
    viou_B = tube_viou(pred_BF4, torch.tensor([[12.0, 18.0]]), gt_BF4, has_box_BF, torch.tensor([[10.0, 14.0]]))
    torch.testing.assert_close(viou_B, torch.tensor([3 / 16]))
    torch.testing.assert_close(gt_tube_iou(pred_BF4, gt_BF4, has_box_BF), torch.tensor([7 / 8]))


def test_a_true_frame_without_a_box_counts_in_the_union_only() -> None:
    """Span [0, 4) predicted exactly, one of four boxes missing: vIoU 3/4; gt-conditioned 3/3."""
    boxes_BF4 = random_boxes(1, 4)
    has_box_BF = torch.tensor([[True, False, True, True]])
    span_B2 = torch.tensor([[0.0, 4.0]])
    torch.testing.assert_close(tube_viou(boxes_BF4, span_B2, boxes_BF4, has_box_BF, span_B2), torch.tensor([0.75]))
    torch.testing.assert_close(gt_tube_iou(boxes_BF4, boxes_BF4, has_box_BF), torch.tensor([1.0]))


def test_tubes_without_boxes_or_span_score_zero() -> None:
    """A failed answer has the empty span (0, 0); a truth without boxes scores 0; nothing is 0/0."""
    boxes_BF4 = random_boxes(1, 4)
    has_box_BF = torch.ones(1, 4, dtype=torch.bool)
    span_B2, empty_B2 = torch.tensor([[0.0, 4.0]]), torch.zeros(1, 2)
    assert tube_viou(boxes_BF4, empty_B2, boxes_BF4, has_box_BF, span_B2).item() == 0
    assert tube_viou(boxes_BF4, span_B2, boxes_BF4, ~has_box_BF, span_B2).item() == 0
    assert tube_viou(boxes_BF4, empty_B2, boxes_BF4, has_box_BF, empty_B2).item() == 0
    assert gt_tube_iou(boxes_BF4, boxes_BF4, ~has_box_BF).item() == 0


def test_tube_viou_padding_invariant_and_batched_equals_single() -> None:
    """Columns beyond a row's true span do not count, even where boxes agree and the prediction goes on."""
    pred_BF4, gt_BF4 = random_boxes(3, 6, seed=1), random_boxes(3, 6, seed=2)
    pred_BF4[:, 4:] = gt_BF4[:, 4:]
    gt_span_B2 = torch.tensor([[10.0, 14.0], [20.0, 24.0], [0.0, 6.0]])
    pred_span_B2 = torch.tensor([[8.0, 40.0], [21.0, 23.0], [0.0, 6.0]])
    has_box_BF = torch.ones(3, 6, dtype=torch.bool)
    batched_B = tube_viou(pred_BF4, pred_span_B2, gt_BF4, has_box_BF, gt_span_B2)
    for b, length in enumerate((4, 4, 6)):
        single_B = tube_viou(
            pred_BF4[b : b + 1, :length], pred_span_B2[b : b + 1], gt_BF4[b : b + 1, :length],
            has_box_BF[b : b + 1, :length], gt_span_B2[b : b + 1],
        )  # fmt: skip
        torch.testing.assert_close(batched_B[b : b + 1], single_B)


def test_tube_viou_is_bounded_by_the_tiou_and_differentiable() -> None:
    """Every frame adds at most 1, so vIoU <= tIoU, with equality for exact boxes; the gradient meets only frames in
    both spans."""
    gt_BF4, span_B2, pred_span_B2 = random_boxes(1, 6, seed=2), torch.tensor([[0.0, 6.0]]), torch.tensor([[2.0, 5.0]])
    has_box_BF = torch.ones(1, 6, dtype=torch.bool)
    exact_B = tube_viou(gt_BF4, pred_span_B2, gt_BF4, has_box_BF, span_B2)
    torch.testing.assert_close(exact_B, span_iou(pred_span_B2, span_B2))
    pred_BF4 = (gt_BF4 + torch.tensor([0.0, 0.0, 0.01, 0.01])).requires_grad_()
    viou_B = tube_viou(pred_BF4, pred_span_B2, gt_BF4, has_box_BF, span_B2)
    assert viou_B.item() < exact_B.item()
    viou_B.sum().backward()
    assert pred_BF4.grad is not None
    assert pred_BF4.grad.abs().sum(dim=-1)[0].gt(0).tolist() == [False, False, True, True, True, False]


@pytest.mark.skipif(not GOLDEN_VECTORS.exists(), reason="shared/data is not here")
def test_metrics_equal_the_published_evaluators() -> None:
    """tIoU, vIoU and gt-conditioned vIoU of every golden case; its README says how the tubes are made.

    The tube at frame f is [20 + f/2 + d, 30 + d, 100 + f/2 + d, 150 + d] pixels; d shifts the prediction alone.
    """
    shifts_px = {"early_and_shift8px": 8.0, "vidstg_val0_times_29.97": 5.0}
    cases = json.loads(GOLDEN_VECTORS.read_text())
    assert len(cases) >= 7
    for case in cases:
        gt_span_B2, pred_span_B2 = (torch.tensor([case[key]]).float() for key in ("gt_halfopen", "pred_halfopen"))
        frames_BF = torch.arange(*case["gt_halfopen"])[None].float()
        sampled_BT = torch.arange(0, case["frame_count"], 10)[None].float()
        gt_BF4 = golden_tube(frames_BF, 0.0)
        pred_BF4 = interpolate_tube(
            golden_tube(sampled_BT, shifts_px.get(case["name"], 0.0)),
            sampled_BT,
            torch.ones_like(sampled_BT, dtype=torch.bool),
            frames_BF,
        )
        has_box_BF = torch.ones_like(frames_BF, dtype=torch.bool)
        measured = {
            "tiou": span_iou(pred_span_B2, gt_span_B2).item(),
            "viou": tube_viou(pred_BF4, pred_span_B2, gt_BF4, has_box_BF, gt_span_B2).item(),
            "gt_viou": gt_tube_iou(pred_BF4, gt_BF4, has_box_BF).item(),
        }
        assert measured == pytest.approx(case["canon"], abs=1e-5), case["name"]


def golden_tube(frames_BF: Tensor, shift_px: float) -> Tensor:
    """Boxes of a golden case in a 640 x 360 image, normalised; IoU does not depend on the image's size."""
    moved, still = frames_BF / 2 + shift_px, torch.full_like(frames_BF, shift_px)
    boxes_px = torch.stack([20 + moved, 30 + still, 100 + moved, 150 + still], dim=-1)
    return normalize_boxes(boxes_px, width=640, height=360)
