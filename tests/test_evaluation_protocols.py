"""The published evaluators' formulas: by hand, by property, and against what their own code printed."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import published

from data.types import BoxPx, FrameSpan
from evaluation.protocols import Protocol, TubeScore, score_tube, tubedetr_frames

BOX = (10.0, 10.0, 20.0, 20.0)
PROTOCOLS: tuple[Protocol, ...] = ("canon", "tubedetr", "stcat", "hcstvg")
NAMES_IN_FILE = {
    "tubedetr_5fps": ("tubedetr", "vidstg"),
    "stcat": ("stcat", "hcstvg"),
    "cgstvg": ("stcat", "hcstvg"),
    "tastvg": ("stcat", "hcstvg"),
    "stcat_vidstgpath_pred_halfopen": ("stcat", "vidstg"),
    "hcstvg_official": ("hcstvg", "hcstvg"),
    "canon": ("canon", "vidstg"),
}

# What the evaluators' own code printed (tIoU, vIoU) on one moving box: frames, shift of the prediction in px, then
# TubeDETR, STCAT on HC-STVG, STCAT on VidSTG; the official HC-STVG script and canon print what STCAT does on VidSTG.
PRINTED = [
    ((100, 400), (100, 400), 0, (1.0, 1.0), (0.9966666667, 0.9966666667), (1.0, 1.0)),
    ((100, 110), (100, 110), 0, (1.0, 1.0), (0.9, 0.9), (1.0, 1.0)),
    ((100, 400), (60, 340), 8, (0.7058823529, 0.5081669691), (0.7079646018, 0.5126640220), (0.7058823529, 0.5111561866)),
    ((100, 400), (150, 250), 0, (0.3333333333, 0.34), (0.3344481605, 0.3344481605), (0.3333333333, 0.3333333333)),
    ((100, 200), (400, 500), 0, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    ((100, 400), (0, 600), 0, (0.5, 0.5), (0.4983333333, 0.4983333333), (0.5, 0.5)),
]  # fmt: skip
PRINTED_AT_2997 = ((510, 556), (505, 560), 5, (0.8363636364, 0.7249802994), (0.8181818182, 0.6673114120), (0.8363636364, 0.6821405545))  # fmt: skip


def tube(frames: range, shift_px: float) -> dict[int, BoxPx]:
    """80 x 120 px, moving half a pixel each frame; float32, as evaluators have them."""
    rows = [[20 + f / 2 + shift_px, 30 + shift_px, 100 + f / 2 + shift_px, 150 + shift_px] for f in frames]
    return {f: tuple(row) for f, row in zip(frames, np.float32(rows).tolist(), strict=True)}  # type: ignore[misc]


def on_moving_box(
    protocol: Protocol, dataset: Any, gt: tuple[int, int], pred: tuple[int, int], shift_px: float, clip: tuple[int, int], fps: float,
) -> TubeScore:  # fmt: skip
    return score_tube(
        protocol,
        gt_span=gt,
        gt_boxes=tube(range(*gt), 0.0),
        pred_span=pred,
        pred_boxes=tube(range(*pred), shift_px),
        clip=clip,
        fps=fps,
        dataset=dataset,
        pred_boxes_in_gt=tube(range(*clip), shift_px),
    )


@pytest.mark.parametrize(
    ("case", "clip", "fps"), [*((case, (0, 600), 30.0) for case in PRINTED), (PRINTED_AT_2997, (496, 596), 29.97)]
)
def test_every_protocol_gives_what_its_own_code_printed(case: Any, clip: tuple[int, int], fps: float) -> None:
    gt, pred, shift_px, tubedetr, stcat_hcstvg, stcat_vidstg = case
    expected = {
        ("tubedetr", "vidstg"): tubedetr,
        ("stcat", "hcstvg"): stcat_hcstvg,
        ("stcat", "vidstg"): stcat_vidstg,
        ("hcstvg", "hcstvg"): stcat_vidstg,
        ("canon", "vidstg"): stcat_vidstg,
    }
    for (protocol, dataset), values in expected.items():
        score = on_moving_box(protocol, dataset, gt, pred, shift_px, clip, fps)  # type: ignore[arg-type]
        assert (score.tiou, score.viou) == pytest.approx(values, abs=1e-6), (protocol, dataset)


def test_golden_vectors() -> None:
    """tIoU, vIoU and gt_vIoU; the last with boxes at all frames of the clip, as those evaluators had."""
    shifts_px = {"early_and_shift8px": 8.0, "vidstg_val0_times_29.97": 5.0}
    for case in json.loads(published("golden_vectors.json").read_text()):
        clip = (case["segment_inclusive"][0], case["segment_inclusive"][1] + 1)
        gt, pred = (tuple(case[key]) for key in ("gt_halfopen", "pred_halfopen"))
        for name, (protocol, dataset) in NAMES_IN_FILE.items():
            score = on_moving_box(protocol, dataset, gt, pred, shifts_px.get(case["name"], 0.0), clip, case["fps"])  # type: ignore[arg-type]
            expected = {key: case[name][key] for key in dict(score) if key in case[name]}
            assert {key: score[key] for key in expected} == pytest.approx(expected, abs=1e-6), (case["name"], name)


def test_golden_gt_viou_without_conditioned_boxes() -> None:
    """Where the predicted span covers the true one, the predicted boxes are all that gt_vIoU needs."""
    shifts_px = {"early_and_shift8px": 8.0, "vidstg_val0_times_29.97": 5.0}
    covered = 0
    for case in json.loads(published("golden_vectors.json").read_text()):
        gt, pred = case["gt_halfopen"], case["pred_halfopen"]
        if pred[0] <= gt[0] and gt[1] <= pred[1]:
            covered += 1
            boxes = tube(range(*pred), shifts_px.get(case["name"], 0.0))
            score = one("canon", gt=tuple(gt), gt_boxes=tube(range(*gt), 0.0), pred=tuple(pred), pred_boxes=boxes)
            assert score.gt_viou == pytest.approx(case["canon"]["gt_viou"], abs=1e-6)
    assert covered == 4


def one(
    protocol: Protocol,
    *,
    gt: tuple[int, int] = (10, 20),
    gt_boxes: dict[int, BoxPx] | None = None,
    pred: tuple[int, int] | None = (10, 20),
    pred_boxes: dict[int, BoxPx] | None = None,
    dataset: Any = "vidstg",
    clip: tuple[int, int] = (0, 1000),
    fps: float = 5.0,
    in_gt: dict[int, BoxPx] | None = None,
) -> TubeScore:
    return score_tube(
        protocol,
        gt_span=gt,
        gt_boxes=dict.fromkeys(range(*gt), BOX) if gt_boxes is None else gt_boxes,
        pred_span=pred,
        pred_boxes=dict.fromkeys(range(*(pred or (0, 0))), BOX) if pred_boxes is None else pred_boxes,
        clip=clip,
        fps=fps,
        dataset=dataset,
        pred_boxes_in_gt=in_gt,
    )


def test_canon_interpolates_and_holds() -> None:
    """True box still at x = 10 .. 20; predicted at frames 12 (exact) and 16 (moved by 4 px), span [10, 20).

    Moves at 10 .. 19: 0 0 0 1 2 3 4 4 4 4 px, IoU (10 - m) / (10 + m).
    """
    moved = (14.0, 10.0, 24.0, 20.0)
    score = one("canon", pred_boxes={16: moved, 12: BOX})
    expected = (3 + 9 / 11 + 8 / 12 + 7 / 13 + 4 * 6 / 14) / 10
    assert (score.tiou, score.viou, score.gt_viou) == pytest.approx((1, expected, expected))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_boxes_outside_of_the_predicted_span_are_ignored(protocol: Protocol) -> None:
    """They neither count nor pull the interpolation."""
    inside: dict[int, BoxPx] = dict.fromkeys((12, 16), BOX)
    outside = {9: (0.0, 0.0, 1.0, 1.0), 18: BOX, 17: (0.0, 0.0, 1.0, 1.0)}
    alone, both = (one(protocol, pred=(10, 17), pred_boxes=boxes) for boxes in (inside, inside | outside))
    assert both == alone
    assert both.viou > 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("pred", [None, (30, 40), (21, 22)])
def test_failed_and_disjoint_answers_score_zero(protocol: Protocol, pred: tuple[int, int] | None) -> None:
    """gt_vIoU too, unless boxes were asked for at the true frames."""
    assert dict(one(protocol, pred=pred)) == {"tiou": 0, "viou": 0, "gt_viou": 0}
    assert one(protocol, pred=pred, in_gt={10: BOX}).gt_viou == pytest.approx(1)


def test_a_true_frame_without_a_box_counts_in_the_union() -> None:
    """3 of 10 true frames are annotated: vIoU 3/10; the official script's tIoU counts frames with both boxes."""
    holed: dict[int, BoxPx] = dict.fromkeys((10, 11, 19), BOX)
    assert one("canon", gt_boxes=holed).viou == pytest.approx(0.3)
    assert one("canon", gt_boxes=holed).gt_viou == pytest.approx(1.0)
    assert (one("canon", gt_boxes=holed).tiou, one("hcstvg", gt_boxes=holed).tiou) == pytest.approx((1.0, 0.3))
    assert one("hcstvg", pred_boxes={}).tiou == 0


def test_stcat_loses_a_frame_where_the_truth_ends_with_the_vidstg_clip() -> None:
    """True and predicted [10, 20), clip [0, 20): read as [10, 19), so 9 / 10; elsewhere 1."""
    assert one("stcat", clip=(0, 20)).viou == pytest.approx(0.9)
    assert one("stcat", clip=(0, 21)).viou == pytest.approx(1.0)
    assert one("stcat", clip=(0, 21), dataset="hcstvg").viou == pytest.approx(0.9)


def test_stcat_on_hcstvg_with_one_frame_is_zero() -> None:
    """(L - 1) / L of L = 1."""
    assert dict(one("stcat", gt=(10, 11), pred=(10, 11), dataset="hcstvg")) == {"tiou": 0, "viou": 0, "gt_viou": 1}


def test_stcat_repeats_the_last_true_box_in_gt_viou() -> None:
    """At frame 20 the predicted box has moved by 5 px, IoU 5 / 15: (10 + 1/3) / 11."""
    in_gt = dict.fromkeys(range(20), BOX) | {20: (15.0, 10.0, 25.0, 20.0)}
    assert one("stcat", in_gt=in_gt).gt_viou == pytest.approx((10 + 1 / 3) / 11)
    assert one("stcat", in_gt=in_gt, dataset="hcstvg").gt_viou == pytest.approx(1)


@pytest.mark.parametrize(
    ("clip", "fps", "expected"),
    [
        ((0, 13), 10.0, [0, 2, 4, 6, 8, 10]),  # every second one, never the last
        ((3, 10), 10.0, [3, 4, 6, 8]),  # 3 is in the tick that 4 ends
        ((0, 10), 12.0, [0, 3, 5, 8]),  # ticks of f * 5 / 12: 0 0 0 1 1 2 2 2 3
        ((0, 6), 2.0, [0, 1, 2, 3, 4]),  # fewer than 5 a second: all
        ((7, 8), 30.0, [7]),
    ],
)
def test_tubedetr_frames_by_hand(clip: tuple[int, int], fps: float, expected: list[int]) -> None:
    assert tubedetr_frames(*clip, fps).tolist() == expected


def test_tubedetr_frames_are_at_most_200() -> None:
    """400 ticks: every second one of them."""
    assert tubedetr_frames(0, 401, 5.0).tolist() == list(range(0, 400, 2))


def test_tubedetr_frames_equal_its_loop() -> None:
    """The published loop, word for word: another frame whenever int(f * r) has grown since the last one."""
    for start, end, fps in [(0, 700, 29.97), (496, 596, 29.97), (17, 500, 23.976), (5, 90, 15.0), (0, 300, 25.0)]:
        ids = [start]
        for frame in range(start, end - 1):
            if int(ids[-1] * (5 / fps)) < int(frame * (5 / fps)):
                ids.append(frame)
        assert tubedetr_frames(start, end, fps).tolist() == ids


def test_tubedetr_scores_sampled_frames_only() -> None:
    """10 fps: frames 0, 2, 4 ... Boxes are right at the odd frames alone, which nobody looks at."""
    boxes = {f: BOX if f % 2 else (50.0, 50.0, 60.0, 60.0) for f in range(10, 20)}
    assert one("tubedetr", pred_boxes=boxes, fps=10.0).viou == 0
    assert one("canon", pred_boxes=boxes, fps=10.0).viou == pytest.approx(0.5)


def test_a_true_span_between_two_sampled_frames_scores_zero_by_tubedetr() -> None:
    score = one("tubedetr", gt=(11, 12), pred=(11, 12), fps=10.0)
    assert dict(score) == {"tiou": 1, "viou": 0, "gt_viou": 0}


spans = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))
boxes_px = st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(50.5, 90)] * 2)


@settings(deadline=None, max_examples=60)
@given(spans, spans, boxes_px, st.sampled_from(PROTOCOLS), st.sampled_from(["vidstg", "hcstvg"]), st.sampled_from([5.0, 10.0, 29.97]))  # fmt: skip
def test_properties(gt: Any, pred: Any, box: BoxPx, protocol: Protocol, dataset: Any, fps: float) -> None:
    """In [0, 1]; vIoU <= tIoU (not TubeDETR's, whose tIoU is of other frames); tIoU symmetric where ends are not off."""
    ours = dict.fromkeys(range(*pred), box)
    score = one(protocol, gt=gt, pred=pred, pred_boxes=ours, dataset=dataset, fps=fps)
    assert all(0 <= value <= 1 for value in dict(score).values())
    if protocol != "tubedetr":
        assert score.viou <= score.tiou + 1e-9
    if (protocol, dataset) != ("stcat", "hcstvg"):
        assert score.tiou == pytest.approx(one(protocol, gt=pred, pred=gt, dataset=dataset, fps=fps).tiou)


@settings(deadline=None, max_examples=60)
@given(spans, boxes_px, st.sampled_from(PROTOCOLS), st.sampled_from(["vidstg", "hcstvg"]))
def test_a_perfect_tube_scores_one(span: Any, box: BoxPx, protocol: Protocol, dataset: Any) -> None:
    """But STCAT's (L - 1) / L on HC-STVG. 5 fps: TubeDETR samples every frame."""
    boxes = dict.fromkeys(range(*span), box)
    score = one(protocol, gt=span, gt_boxes=boxes, pred=span, pred_boxes=boxes, dataset=dataset)
    length = span[1] - span[0]
    expected = (length - 1) / length if (protocol, dataset) == ("stcat", "hcstvg") else 1.0
    assert (score.tiou, score.viou) == pytest.approx((expected, expected))


def test_frame_spans_are_taken_too() -> None:
    score = score_tube(
        "canon",
        gt_span=FrameSpan(0, 4),
        gt_boxes=dict.fromkeys(range(4), BOX),
        pred_span=FrameSpan(2, 6),
        pred_boxes={2: BOX},
        clip=FrameSpan(0, 10),
        fps=5.0,
        dataset="vidstg",
    )
    assert (score.tiou, score["viou"]) == pytest.approx((1 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "best"}, "protocol: expected one of"),
        ({"dataset": "vid"}, "dataset: expected one of"),
        ({"gt": (20, 10)}, "gt_span: expected whole frames"),
        ({"pred": (3.5, 10)}, "pred_span: expected whole frames"),
        ({"clip": (-1, 10)}, "clip: expected whole frames"),
        ({"pred_boxes": {10: (0.0, 0.0, float("nan"), 1.0)}}, "pred_boxes: expected four finite numbers at frame 10"),
        ({"gt_boxes": {10: (0.0, 0.0, 1.0)}}, "gt_boxes: expected four finite numbers at frame 10"),
        ({"fps": 0.0}, "fps: expected a positive number"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_an_error(wrong: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"protocol": "canon", "pred_boxes": {}, "gt_boxes": {}, **wrong}
    with pytest.raises(ValueError, match=message):
        one(values.pop("protocol"), **values)
