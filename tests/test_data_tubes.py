"""Interpolation, vIoU and gt-conditioned vIoU of tubes, by hand, by property, and against published evaluators."""

import json

import pytest
import torch
from published import published
from test_data_geometry import random_boxes
from torch import Tensor

from data.geometry import gt_tube_iou, interpolate_tube, normalize_boxes, span_iou, tube_viou
from data.ragged_boxes import ragged_boxes
from data.tubes import dense_tube
from data.types import BoxPx, FrameSpan, GroundingSample

NAN = float("nan")
BOX = (1.0, 2.0, 3.0, 4.0)


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


def test_metrics_equal_the_published_evaluators() -> None:
    """tIoU, vIoU and gt-conditioned vIoU of every golden case; its README says how the tubes are made.

    The tube at frame f is [20 + f/2 + d, 30 + d, 100 + f/2 + d, 150 + d] pixels; d shifts the prediction alone.
    """
    shifts_px = {"early_and_shift8px": 8.0, "vidstg_val0_times_29.97": 5.0}
    cases = json.loads(published("golden_vectors.json").read_text())
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


def test_ragged_boxes_pad_and_keep() -> None:
    """Three samples with 2, 0 and 1 boxes, the first's frames not in order."""
    boxes = ragged_boxes([{9: BOX, 4: (0.0, 0.0, 1.0, 1.0)}, {}, {7: BOX}])
    assert (boxes.row_N.tolist(), boxes.frame_N.tolist()) == ([0, 0, 2], [4, 9, 7])
    assert boxes.boxes_N4.tolist() == [[0, 0, 1, 1], list(BOX), list(BOX)]
    assert boxes.pad(torch.tensor([10, 11, 12]), fill=-1).tolist() == [[10, 11], [-1, -1], [12, -1]]
    assert boxes.keep(boxes.frame_N > 4).pad(torch.tensor([11, 12])).tolist() == [[11], [0], [12]]
    assert ragged_boxes([{}, {}]).pad(torch.zeros(0, 4)).shape == (2, 1, 4)


def test_true_boxes_of_samples_with_and_without_gaps() -> None:
    """Normalised by each sample's own size; a frame without a box is zeros and marked."""

    def sample(boxes: tuple[BoxPx | None, ...], width: int) -> GroundingSample:
        span = FrameSpan(5, 5 + len(boxes))
        return GroundingSample(
            "a", "stvg", "q", "a.mp4", 8.0, width, 10, FrameSpan(0, 90), span=span, boxes_xyxy_px=boxes
        )

    boxes_BF4, has_box_BF = dense_tube([sample((BOX, BOX, BOX), 10), sample((None, BOX), 20)])
    torch.testing.assert_close(boxes_BF4[0], torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 3))
    torch.testing.assert_close(boxes_BF4[1], torch.tensor([[0.0] * 4, [0.05, 0.2, 0.15, 0.4], [0.0] * 4]))
    assert has_box_BF.tolist() == [[True, True, True], [False, True, False]]
