"""The length of a prompt before its video is decoded, against the processor itself; fewer frames where it is too long."""

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Tiny
from transformers import Qwen2VLImageProcessor, Qwen3VLVideoProcessor

from configs.data import DataConfig
from configs.video import VideoConfig
from data.dataset import PromptEncoder
from data.encoding import encode_prompt
from data.token_budget import PromptError, TokenBudget, image_size, report_budget, video_size
from data.types import DecodedClip, FrameSpan, GroundingSample
from model.build import FRAME_SAMPLING, as_trained
from model.grounding_model import GroundingConfig


class Processor:
    """The two processors of Qwen3-VL with the sizes of its release."""

    image_processor = Qwen2VLImageProcessor(
        patch_size=16, merge_size=2, size={"shortest_edge": 65536, "longest_edge": 16777216}
    )
    video_processor = Qwen3VLVideoProcessor(
        size={"shortest_edge": 4096, "longest_edge": 25165824}, cap_pixels_per_frame=False
    )


@pytest.mark.parametrize(
    ("frames", "height", "width", "expected"),
    [
        # 64 x 64 in cells of 32: 2 x 2; 16 frames are 8 temporal patches.
        (16, 64, 64, (8, 64, 64, 32)),
        # An odd frame is repeated: 7 frames are 4 patches.
        (7, 64, 64, (4, 64, 64, 16)),
        # 360 / 32 = 11.25 and 640 / 32 = 20: 11 x 20 cells in 20 patches, as in the processor's table for 20 s at 2 fps.
        (40, 360, 640, (20, 352, 640, 4400)),
        # 1920 x 1080 x 64 frames exceed 25165824: beta = sqrt(64 * 1080 * 1920 / 25165824) = 2.2964; 1080 / beta / 32 =
        # 14.69, 1920 / beta / 32 = 26.12, rounded down.
        (64, 1080, 1920, (32, 448, 832, 32 * 14 * 26)),
    ],
)
def test_size_of_a_video(frames: int, height: int, width: int, expected: tuple[int, ...]) -> None:
    size = video_size(Processor, num_frames=frames, height_px=height, width_px=width)
    assert dataclasses.astuple(size) == expected


@settings(max_examples=40)
@given(frames=st.integers(2, 12), height=st.integers(16, 240), width=st.integers(16, 320), budget=st.integers(1, 40))
def test_size_of_a_video_is_the_processors(frames: int, height: int, width: int, budget: int) -> None:
    """Any size, odd numbers of frames, budgets that bind and ones that do not."""
    processor: Any = Processor()
    processor.video_processor = Qwen3VLVideoProcessor(
        size={"shortest_edge": 4096, "longest_edge": budget * 16384}, cap_pixels_per_frame=False
    )
    grid = processor.video_processor(
        videos=[torch.zeros(frames, 3, height, width, dtype=torch.uint8)], do_sample_frames=False, return_tensors="pt"
    )["video_grid_thw"][0].tolist()
    size = video_size(processor, num_frames=frames, height_px=height, width_px=width)
    assert [size.temporal_patches, size.height_px // 16, size.width_px // 16] == grid
    assert size.num_tokens == np.prod(grid) // 4


@settings(max_examples=30)
@given(height=st.integers(16, 400), width=st.integers(16, 400))
def test_size_of_an_image_is_the_processors(height: int, width: int) -> None:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    grid = Processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"][0].tolist()
    size = image_size(Processor, height_px=height, width_px=width)
    assert [1, size.height_px // 16, size.width_px // 16] == grid
    assert size.num_tokens == np.prod(grid) // 4


def clip_of(sample: GroundingSample, frame_idx_T: np.ndarray) -> DecodedClip:
    frames_THW3 = np.zeros((len(frame_idx_T), sample.height, sample.width, 3), dtype=np.uint8)
    return DecodedClip(frames_THW3, frame_idx_T, (frame_idx_T - sample.clip.start) / sample.fps)


QUERIES = st.sampled_from(["the red circle", "", "naïve café, 狗在跑 क़ 🐕", "x" * 300]) | st.text(max_size=40)


@settings(max_examples=40)
@given(
    query=QUERIES,
    length=st.integers(1, 400),
    fps=st.sampled_from([4.0, 8.0, 29.97]),
    height=st.integers(32, 128),
    width=st.integers(32, 128),
    task=st.sampled_from(["stvg", "qa"]),
)
def test_length_is_a_bound_that_is_exact_but_for_timestamps(
    tiny: Tiny, query: str, length: int, fps: float, height: int, width: int, task: str
) -> None:
    """The real processor's prompt is at most as long, and shorter by no more than what timestamps differ by."""
    sample = dataclasses.replace(
        tiny.of_task("qa" if task == "qa" else "temporal")[0],
        query=f"a {query}", clip=FrameSpan(10, 10 + length), span=None, fps=fps, height=height, width=width,
    )  # fmt: skip
    budget = TokenBudget(tiny.processor, VideoConfig(max_frames=16), order="query_video_query")
    frame_idx_T = budget.frames(sample)
    prompt = encode_prompt(tiny.processor, sample, clip_of(sample, frame_idx_T), order="query_video_query")
    bound, actual = budget.num_tokens(sample, len(frame_idx_T)), len(prompt.input_ids_L)
    patches = 0 if prompt.is_image else int(prompt.grid_3[0])
    assert actual <= bound
    if sample.duration_sec < 15:  # every timestamp is one token of the tiny tokenizer, so all are alike
        assert actual == bound
    plan = budget.plan(sample)
    assert (plan.size.num_tokens, plan.size.temporal_patches * bool(patches)) == (prompt.num_cells, patches)
    assert budget._bound(sample, plan.size) >= actual


def long_sample(tiny: Tiny, **changes: Any) -> GroundingSample:
    """12 s at 4 fps of 64 x 64: 2 x 2 cells, 4 tokens a patch, 1 for its timestamp, 2 for its start and end. A long query,
    since a budget is at least 64 tokens."""
    sample = dataclasses.replace(
        tiny.of_task("temporal")[0], clip=FrameSpan(0, 48), span=FrameSpan(0, 8), query="the red circle " * 20
    )
    return dataclasses.replace(sample, **changes)


def budget_of(tiny: Tiny, limit: int | None, **video: Any) -> TokenBudget:
    return TokenBudget(tiny.processor, VideoConfig(max_prompt_tokens=limit, **video), order="query_video_query")


def test_a_prompt_gets_the_most_frames_that_fit(tiny: Tiny) -> None:
    """24 frames at 2 fps are 12 patches of 4 + 1 + 2 = 7 tokens. A budget for 84 takes them all, one for 83 and 77 takes
    11 patches, 22 frames, and one for 76 takes 20."""
    sample = long_sample(tiny)
    text = budget_of(tiny, None).num_tokens(sample, 24) - 84
    for room, frames in ((84, 24), (83, 22), (77, 22), (76, 20), (14, 4), (13, 2), (7, 2)):
        budget = budget_of(tiny, text + room)
        assert budget.plan(sample).num_frames == frames == len(budget.frames(sample))
    with pytest.raises(
        PromptError, match=f"{sample.sample_id}.*2 frames of 64 x 64 pixels and its text are {text + 7} to"
    ):
        budget_of(tiny, text + 6).frames(sample)


def test_fewer_frames_are_spread_over_the_clip(tiny: Tiny) -> None:
    """48 frames: 4 at a stride of 12 instead of 24 at 2; of a fixed number, 0, 47 / 3, 94 / 3 and 47, rounded down."""
    sample = long_sample(tiny)
    text = budget_of(tiny, None).num_tokens(sample, 24) - 84
    assert budget_of(tiny, text + 14).frames(sample).tolist() == [0, 12, 24, 36]
    assert budget_of(tiny, text + 14, num_frames=24).frames(sample).tolist() == [0, 15, 31, 47]
    assert len(budget_of(tiny, text + 84, num_frames=24).frames(sample)) == 24


def test_an_image_fits_or_is_an_error(tiny: Tiny) -> None:
    sample = dataclasses.replace(tiny.of_task("rec")[0], query="the red circle " * 20)
    tokens = budget_of(tiny, None).num_tokens(sample, 1)
    assert budget_of(tiny, tokens).frames(sample).tolist() == [sample.clip.start]
    with pytest.raises(PromptError, match=f"1 frames of 64 x 64 pixels and its text are {tokens} tokens"):
        budget_of(tiny, tokens - 1).frames(sample)


def test_sizes_that_no_prompt_is_made_of(tiny: Tiny) -> None:
    """The processor refuses an aspect ratio of more than 200; a video nobody has looked at has no size."""
    with pytest.raises(PromptError, match=r"9000 x 32 pixels: absolute aspect ratio"):
        budget_of(tiny, 500).frames(long_sample(tiny, width=9000, height=32))
    with pytest.raises(PromptError, match="width and height are not known"):
        budget_of(tiny, 500).frames(long_sample(tiny, width=0, height=0))


def test_the_encoder_keeps_to_the_budget(tiny: Tiny) -> None:
    """The fixture's 16 frames at 4 fps are 8 patches; with a budget for 5 of them every vision span is still whole."""
    sample = tiny.of_task("stvg")[0]
    full = tiny.encoder(sample)
    limit = len(full.input_ids_L) - 3 * 7
    video = tiny.data.video.model_copy(update={"max_prompt_tokens": limit})
    prompt = PromptEncoder(tiny.processor, tiny.data.model_copy(update={"video": video}))(sample)
    assert len(prompt.input_ids_L) == limit and len(prompt.clip.frame_idx_T) == 10
    ids = prompt.input_ids_L.tolist()
    token = tiny.processor.tokenizer.convert_tokens_to_ids
    assert ids.count(token("<|vision_start|>")) == ids.count(token("<|vision_end|>"))
    assert ids.count(tiny.processor.video_token_id) == 5 * 4


def test_an_encoded_prompt_above_the_budget_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(PromptError, match="its prompt has 101 tokens, above max_prompt_tokens=100"):
        budget_of(tiny, 100).check(long_sample(tiny), 101)
    budget_of(tiny, 100).check(long_sample(tiny), 100)


def test_report(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """One of three is too long. Frames of 64 x 64, 128 x 96 and 128 x 128 stay as they are."""
    samples = [
        long_sample(tiny, sample_id="long"),
        long_sample(tiny, sample_id="wide", clip=FrameSpan(0, 8), width=128, height=96),
        long_sample(tiny, sample_id="large", clip=FrameSpan(0, 8), width=128, height=128),
    ]
    limit = budget_of(tiny, None).num_tokens(samples[0], 24) - 7
    assert limit >= budget_of(tiny, None).num_tokens(samples[2], 4)
    with caplog.at_level(logging.INFO):
        report = report_budget(samples, budget_of(tiny, limit), "train")
    assert report.resampled == [("long", 24, 22)]
    assert report.sizes_px == ((64, 64), (128, 96), (128, 128))
    assert "train: 1 of 3 prompts are above max_prompt_tokens=" in caplog.text and "long 24 -> 22" in caplog.text
    assert "64 x 64 (fewest pixels), 128 x 96 (median), 128 x 128 (most)" in caplog.text


@pytest.mark.parametrize(
    ("trained", "asked", "expected"),
    [
        # Nothing was set: as trained.
        ({"num_frames": 8, "max_prompt_tokens": 500}, {}, (2.0, 8, 500)),
        # Another rate asks for the other rule; the budget stays.
        ({"num_frames": 8, "max_prompt_tokens": 500}, {"sample_fps": 1.0}, (1.0, None, 500)),
        ({"num_frames": 8}, {"num_frames": 4, "max_prompt_tokens": 300}, (2.0, 4, 300)),
        # A checkpoint from before these fields were written down.
        (None, {}, (2.0, None, None)),
    ],
)
def test_a_checkpoint_is_asked_with_the_frames_it_was_trained_on(
    tiny: Tiny, trained: dict[str, Any] | None, asked: dict[str, Any], expected: tuple
) -> None:
    written = VideoConfig(**trained).model_dump(include=FRAME_SAMPLING) if trained else {"max_frames": 64}
    config = GroundingConfig(prompt=tiny.data.prompt.model_dump(), video=written)
    video = as_trained(DataConfig(source=tiny.data.source, video=VideoConfig(**asked)), config).video
    assert (video.sample_fps, video.num_frames, video.max_prompt_tokens) == expected
