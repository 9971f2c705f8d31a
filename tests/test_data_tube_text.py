"""The grammar of a written tube: formatting and parsing are inverse, nothing else parses, and failures say why."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tube_text import TubeText, format_single_box, format_tube, parse_single_box, parse_tubes, tube_pattern

PAPER = """<time> 5 - 7 </time>
<think_bbox> 5. [271, 30, 395, 212], 6. [267, 24, 393, 216], 7. [270, 18, 395, 221] </think_bbox>
<pred_bbox> 5. [278, 35, 399, 234], 6. [289, 34, 403, 236], 7. [300, 28, 405, 237] </pred_bbox>"""
"""STVG-o1 (2511.21375), figure 2."""

SHORT = "<time> 0 - 0 </time>\n<think_bbox> 0. [1, 2, 3, 4] </think_bbox>\n<pred_bbox> 0. [5, 6, 7, 8] </pred_bbox>"

_interval = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(sorted)
_box = st.tuples(_interval, _interval).map(
    lambda sides: (sides[0][0] / 1000, sides[1][0] / 1000, sides[0][1] / 1000, sides[1][1] / 1000)
)
_boxes = st.dictionaries(st.integers(0, 9999), _box, min_size=1, max_size=4).map(
    lambda boxes: dict(sorted(boxes.items()))
)
_tubes = st.builds(
    lambda ends, think, final: TubeText(ends[0], ends[1], think, final),
    st.tuples(st.integers(0, 9999), st.integers(0, 9999)).map(sorted),
    _boxes,
    _boxes,
)


@given(_tubes)
def test_tube_round_trip(tube: TubeText) -> None:
    """parse(format(x)) == x for every tube on the written scale."""
    parsed = parse_tubes([format_tube(tube)])
    assert parsed.reasons == ("",) and parsed.row(0) == tube


@given(_box)
def test_single_box_round_trip(box: tuple[float, float, float, float]) -> None:
    assert parse_single_box(format_single_box(box)) == box


@given(st.lists(st.one_of(_tubes.map(format_tube), st.text(max_size=40)), max_size=5))
def test_a_batch_is_parsed_as_its_texts_alone(texts: list[str]) -> None:
    """Parsing is total, and rows do not disturb each other."""
    together = parse_tubes(texts)
    for b, text in enumerate(texts):
        alone = parse_tubes([text])
        assert together.reasons[b] == alone.reasons[0] and together.row(b) == alone.row(0)
        assert together.consistent_B[b] == alone.consistent_B[0]


@given(_tubes.map(format_tube), st.data())
def test_a_changed_character_is_another_tube_or_none(text: str, data: st.DataObject) -> None:
    """What parses is written as it was read: no text but the canonical one stands for a tube."""
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.sampled_from("0123456789 ,.[]<>/-\n٢")) + text[place + 1 :]
    parsed = parse_tubes([changed])
    assert parsed.reasons != ("",) or format_tube(parsed.row(0)) == changed


def test_the_papers_example() -> None:
    tube = parse_tubes([PAPER]).row(0)
    assert (tube.start, tube.end) == (5, 7)
    assert tube.think_boxes[6] == (0.267, 0.024, 0.393, 0.216)
    assert tube.final_boxes == {
        5: (0.278, 0.035, 0.399, 0.234), 6: (0.289, 0.034, 0.403, 0.236), 7: (0.3, 0.028, 0.405, 0.237),
    }  # fmt: skip
    assert format_tube(tube) == PAPER


def test_boxes_of_a_batch_are_flat() -> None:
    """The second text fails and has none."""
    parsed = parse_tubes([SHORT, "", PAPER])
    assert parsed.reasons == ("", "grammar", "")
    assert parsed.span_B2.tolist() == [[0, 0], [0, -1], [5, 7]]
    assert parsed.think.row_N.tolist() == [0, 2, 2, 2] and parsed.think.frame_N.tolist() == [0, 5, 6, 7]
    np.testing.assert_array_equal(parsed.final.boxes_N4[0], [0.005, 0.006, 0.007, 0.008])


@pytest.mark.parametrize(
    ("think", "final", "expected"),
    [
        ("5. [1, 2, 3, 4], 6. [1, 2, 3, 4]", "5. [1, 2, 3, 4], 6. [1, 2, 3, 4]", True),
        ("5. [1, 2, 3, 4], 6. [1, 2, 3, 4]", "5. [1, 2, 3, 4]", False),  # one is missing
        ("6. [1, 2, 3, 4]", "5. [1, 2, 3, 4], 6. [1, 2, 3, 4]", False),
        ("5. [1, 2, 3, 4], 7. [1, 2, 3, 4]", "5. [1, 2, 3, 4], 6. [1, 2, 3, 4]", False),  # as many, but others
        (
            "5. [1, 2, 3, 4], 6. [1, 2, 3, 4], 7. [1, 2, 3, 4]",
            "5. [1, 2, 3, 4], 6. [1, 2, 3, 4]",
            False,
        ),  # one too many
    ],
)
def test_consistency(think: str, final: str, expected: bool) -> None:
    """Of <time> 5 - 6 </time>: boxes at 5 and 6 in both (the paper's Eq. 4)."""
    text = f"<time> 5 - 6 </time>\n<think_bbox> {think} </think_bbox>\n<pred_bbox> {final} </pred_bbox>"
    parsed = parse_tubes([text])
    assert parsed.reasons == ("",) and parsed.consistent_B.tolist() == [expected]


MALFORMED = [
    ("", "grammar"),
    (PAPER[:-1], "grammar"),  # truncated
    (PAPER[: PAPER.index("<pred")], "grammar"),
    (PAPER + "\n", "grammar"),
    (" " + PAPER, "grammar"),
    ("The answer: " + PAPER, "grammar"),
    (PAPER + PAPER, "grammar"),  # two answers
    (PAPER + "\n" + PAPER, "grammar"),
    (PAPER.replace("\n", " "), "grammar"),
    (PAPER.replace("5 - 7", "5-7"), "grammar"),
    (PAPER.replace("5 - 7", "5.0 - 7.0"), "grammar"),
    (PAPER.replace("5 - 7", "05 - 7"), "grammar"),
    (PAPER.replace("5 - 7", "-5 - 7"), "grammar"),
    (PAPER.replace("5 - 7", "5 - 1e9"), "grammar"),
    (PAPER.replace("5 - 7", "5 - inf"), "grammar"),
    (PAPER.replace("5 - 7", "nan - 7"), "grammar"),
    (PAPER.replace("5 - 7", "5 - 10000"), "grammar"),
    (PAPER.replace("271", "271.5"), "grammar"),
    (PAPER.replace("271", "-271"), "grammar"),
    (PAPER.replace("271", "9" * 400), "grammar"),
    (PAPER.replace("271", "\u0662\u0667\u0661"), "grammar"),  # Arabic-Indic digits, which int() reads
    (PAPER.replace("271", "2_71"), "grammar"),
    (PAPER.replace("271, 30, 395, 212", "271, 30, 395"), "grammar"),
    (PAPER.replace("271, 30, 395, 212", "271, 30, 395, 212, 1"), "grammar"),
    (PAPER.replace(", 6.", " 6."), "grammar"),
    (PAPER.replace("6. ", "6: "), "grammar"),
    (SHORT.replace("0. [1, 2, 3, 4] ", ""), "grammar"),  # no box at all
    (PAPER.replace("think_bbox", "pred_bbox"), "grammar"),
    (PAPER.replace("5 - 7", "7 - 5"), "reversed"),
    (PAPER.replace("7. [300", "6. [300"), "indices"),  # two boxes for one frame
    (PAPER.replace("5. [271", "8. [271"), "indices"),
    (PAPER.replace("271, 30, 395, 212", "395, 30, 271, 212"), "box"),  # left and right swapped
    (PAPER.replace("28, 405, 237", "238, 405, 237"), "box"),
    (PAPER.replace("395, 212", "1001, 212"), "grammar"),  # outside of the scale
]


@pytest.mark.parametrize(("text", "reason"), MALFORMED)
def test_malformed_tube(text: str, reason: str) -> None:
    parsed = parse_tubes([PAPER, text, PAPER])
    assert parsed.reasons == ("", reason, "")
    assert parsed.span_B2.tolist() == [[5, 7], [0, -1], [5, 7]] and parsed.consistent_B.tolist() == [True, False, True]
    assert set(parsed.think.row_N.tolist()) == {0, 2} == set(parsed.final.row_N.tolist())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "grammar"),
        ("<pred_bbox> [1, 2, 3] </pred_bbox>", "grammar"),
        ("<pred_bbox> [1, 2, 3, 4] </pred_bbox> ", "grammar"),
        ("<pred_bbox> [1, 2, 3, 4], [1, 2, 3, 4] </pred_bbox>", "grammar"),
        ("<pred_bbox> 0. [1, 2, 3, 4] </pred_bbox>", "grammar"),
        ("<pred_bbox> [3, 2, 1, 4] </pred_bbox>", "box"),
        ("<pred_bbox> [1, 2, 1001, 4] </pred_bbox>", "grammar"),
    ],
)
def test_malformed_single_box(text: str, reason: str) -> None:
    assert parse_single_box(text) == reason


def test_coordinates_are_rounded_and_cut_to_the_image() -> None:
    """0.12345 is 123, -0.1 is 0, 1.2 is 1000."""
    assert format_single_box((-0.1, 0.12345, 1.2, 0.5)) == "<pred_bbox> [0, 123, 1000, 500] </pred_bbox>"


@pytest.mark.parametrize(("max_boxes", "expected"), [(None, True), (4, True), (3, True), (2, False), (1, False)])
def test_a_bounded_pattern_takes_no_longer_list(max_boxes: int | None, expected: bool) -> None:
    """The paper's example has 3 boxes in each list."""
    assert bool(re.fullmatch(tube_pattern(max_boxes), PAPER)) is expected


@given(_tubes.map(format_tube), st.integers(1, 4))
def test_what_a_bounded_pattern_takes_parses(text: str, max_boxes: int) -> None:
    if re.fullmatch(tube_pattern(max_boxes), text):
        assert parse_tubes([text]).reasons == ("",)
