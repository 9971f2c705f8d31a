"""A sample of each task, with what a file format could lose: null boxes, exact floats, Unicode."""

import dataclasses

from data.types import FrameSpan, GroundingSample, Tube

WIDTH, HEIGHT, NUM_FRAMES = 64, 48, 16

PROBED = GroundingSample(
    sample_id="good",
    task="stvg",
    query="the red circle moves",
    video_path="good.mp4",
    fps=8.0,
    width=WIDTH,
    height=HEIGHT,
    clip=FrameSpan(2, NUM_FRAMES),
    span=FrameSpan(4, 7),
    boxes_xyxy_px=((1.0, 2.0, 3.25, 4.0), None, (0.1, 0.0, 64.0, 48.0)),
    source="mine",
)
TEMPORAL = dataclasses.replace(
    PROBED, sample_id="temporal", task="temporal", boxes_xyxy_px=None, windows_sec=((0.25, 0.625), (1.0, 99.5))
)
UNPROBED = dataclasses.replace(
    TEMPORAL, sample_id="seconds", fps=1000, width=0, height=0, clip=FrameSpan(0, 2000), span=FrameSpan(500, 1000)
)
REC = dataclasses.replace(
    PROBED,
    sample_id="rec",
    task="rec",
    clip=FrameSpan(3, 4),
    span=FrameSpan(3, 4),
    boxes_xyxy_px=((0.0, 1e-9, 1 / 3, 2.0),),
)
QA = dataclasses.replace(
    PROBED,
    sample_id="qa",
    task="qa",
    query="wer bewegt sich -> „links“?",
    query_type="interrogative",
    span=None,
    boxes_xyxy_px=None,
    options=("the circle", "nothing"),
    choice="B",
)
QUESTION = dataclasses.replace(PROBED, sample_id="question", span=None, boxes_xyxy_px=None)
SEVERAL = dataclasses.replace(
    PROBED,
    sample_id="several",
    more_tubes=(
        Tube(FrameSpan(9, 11), (None, (1 / 3, 0.0, 5.0, 6.0))),
        Tube(FrameSpan(4, 5), ((1.0, 1.0, 2.0, 2.0),), object=1),
    ),
)
OF_EVERY_KIND = [PROBED, TEMPORAL, UNPROBED, REC, QA, QUESTION]
