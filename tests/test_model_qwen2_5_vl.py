"""Qwen2.5-VL: positions as vLLM has them, windowed vision, no timestamps in the prompt; and the same path as Qwen3-VL."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import run, write_config
from safetensors import safe_open
from tiny import Tiny
from tiny_qwen2_5_vl import make_tiny_qwen2_5_vl
from transformers import Qwen2_5_VLForConditionalGeneration

from configs.model import BridgeConfig, ModelConfig
from configs.video import VideoConfig
from data.collate import collate_inputs
from data.dataset import PromptEncoder
from data.encoding import encode_prompt, text_ids
from data.token_budget import TokenBudget
from data.types import DecodedClip
from model.backbone import checkpoint_names, encode_vision, generate, load_processor
from model.build import build_model, load_checkpoint, save_checkpoint
from model.qwen2_5_vl import grid_positions, rope_index

ANSWER = "<time> 0.5 - 2.0 </time>"


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL checkpoint folder."""
    folder = tmp_path_factory.mktemp("qwen2_5_vl")
    make_tiny_qwen2_5_vl(tiny.samples, folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tiny: Tiny, folder: Path, bridge_config: BridgeConfig, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint with a grounder on it, saved and loaded."""
    torch.manual_seed(0)
    config = ModelConfig(backbone=str(folder), dtype="float32", bridge=bridge_config, freeze_vision=False)
    model, processor = build_model(config, tiny.data)
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(model, processor, checkpoint)
    loaded, processor = load_checkpoint(checkpoint, dtype="float32")
    return Tiny(checkpoint, tiny.data, tiny.samples, loaded, processor, PromptEncoder(processor, tiny.data))


def batch_of(qwen: Tiny, tasks: tuple[str, ...], rows: list[int] | None = None) -> dict[str, torch.Tensor]:
    prompts = [qwen.encoder(qwen.of_task(task)[0]) for task in tasks]
    answers = [text_ids(qwen.processor, ANSWER)] * len(rows or tasks)
    return collate_inputs(prompts, answers, [[0]] * len(answers), vision_of_row=rows, num_queries=4, pad_id=0)


MODEL = SimpleNamespace(
    config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=2))
)


def test_positions_by_hand() -> None:
    """Two text tokens, a video of three patches of one row of two cells, two text tokens; 0.75 s for a patch.

    A patch is 0.75 s x 2 a second = 1.5 positions later, rounded down: 0, 1, 3. The video begins at 2, so its times are 2,
    3, 5; the text after it goes on at 6. Rows with padding before them are the same.
    """
    types = torch.tensor([[0, 0, 2, 2, 2, 2, 2, 2, 0, 0]])
    grid, seconds = torch.tensor([[3, 2, 4]]), torch.tensor([0.75])
    expected = torch.tensor([
        [0, 1, 2, 2, 3, 3, 5, 5, 6, 7],
        [0, 1, 2, 2, 2, 2, 2, 2, 6, 7],
        [0, 1, 2, 3, 2, 3, 2, 3, 6, 7],
    ])  # fmt: skip
    ids = torch.zeros_like(types)
    positions, offsets = rope_index(MODEL, ids, types, video_grid_thw=grid, second_per_grid_ts=seconds)
    assert torch.equal(positions[:, 0], expected) and offsets.tolist() == [[8 - 10]]
    pad = torch.zeros(1, 3, dtype=torch.long)
    mask = torch.cat([pad, torch.ones_like(types)], dim=1)
    left, offsets = rope_index(
        MODEL, torch.cat([pad, ids], dim=1), torch.cat([pad, types], dim=1),
        video_grid_thw=grid, second_per_grid_ts=seconds, attention_mask=mask,
    )  # fmt: skip
    assert torch.equal(left[:, 0, 3:], expected) and offsets.tolist() == [[8 - 10]]


def test_an_image_has_one_time() -> None:
    assert grid_positions((1, 2, 2), 1.0).tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]


def test_a_video_without_its_rate_is_an_error() -> None:
    types = torch.tensor([[0, 2, 0]])
    with pytest.raises(ValueError, match="expected one number for each of 1 videos"):
        rope_index(MODEL, torch.zeros_like(types), types, video_grid_thw=torch.tensor([[1, 2, 2]]))


def test_the_prompt_tells_the_rate_and_writes_no_times(qwen: Tiny) -> None:
    """4 frames a second, two frames in a patch: half a second, whatever the length; 16 cells of 16 px in a patch."""
    sample = qwen.of_task("stvg")[0]
    prompt = qwen.encoder(sample)
    assert prompt.patch_sec == 0.5 and prompt.grid_3.tolist()[1:] == [8, 8]
    assert "seconds>" not in qwen.processor.tokenizer.decode(prompt.input_ids_L)
    assert len(prompt.input_ids_L) == len(prompt.unexpanded_ids) - 1 + 16 * int(prompt.grid_3[0])
    clip = DecodedClip(
        *(part[:5:2] for part in (prompt.clip.frames_THW3, prompt.clip.frame_idx_T, prompt.clip.times_sec_T))
    )
    assert encode_prompt(qwen.processor, sample, clip, order="query_video_query").patch_sec == 1.0
    assert qwen.encoder(qwen.of_task("rec")[0]).patch_sec is None


@pytest.mark.parametrize("max_pixels", [None, 16 * 48 * 48])
def test_the_token_budget_knows_the_length(qwen: Tiny, folder: Path, max_pixels: int | None) -> None:
    """Of a video and an image, with the processor's own bound and with one of all frames together."""
    processor = load_processor(str(folder), max_pixels=max_pixels)
    budget = TokenBudget(processor, VideoConfig(sample_fps=4.0), order="query_video_query")
    for task in ("stvg", "rec"):
        sample = qwen.of_task(task)[0]
        prompt = encode_prompt(processor, sample, qwen.encoder(sample).clip, order="query_video_query")
        assert budget.num_tokens(sample, len(prompt.clip.frame_idx_T)) == len(prompt.input_ids_L)
        height, width = (int(size) * 8 for size in prompt.grid_3[1:])
        assert (height, width) == ((48, 48) if max_pixels and task == "stvg" else (64, 64))
        assert not max_pixels or len(prompt.clip.frame_idx_T) * height * width <= max_pixels or task == "rec"


def test_patches_lie_where_the_pixels_are(qwen: Tiny) -> None:
    """A tower whose blocks and merger do nothing gives each patch as it is embedded: the lit one is where it was lit."""
    mllm = load_checkpoint(qwen.folder, dtype="float32")[0].mllm
    row, column, size = 5, 2, 8
    frames = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    frames[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size] = 255
    encode = qwen.processor.video_processor
    lit, dark = (
        encode(videos=[video], do_sample_frames=False, return_tensors="pt")
        for video in (frames, torch.zeros_like(frames))
    )
    mllm.model.visual.blocks = torch.nn.ModuleList()
    with torch.inference_mode():
        features = [encode_vision(mllm, v["pixel_values_videos"], v["video_grid_thw"]) for v in (lit, dark)]
    (lit_TSC, centres_S2), (dark_TSC, _) = (vision.cells(0, "patches") for vision in features)
    changed = (lit_TSC - dark_TSC).abs().sum(dim=-1) > 1e-6
    assert changed.sum(dim=1).tolist() == [1, 1]
    assert centres_S2[changed[0]].tolist() == [[(column + 0.5) / 8, (row + 0.5) / 8]]
    merged = [vision.cells(0, "merged")[0] for vision in features]
    changed = (merged[0] - merged[1]).abs().sum(dim=-1) > 1e-6
    assert changed[0].nonzero().tolist() == [[row // 2 * 4 + column // 2]]


def test_weights_go_to_the_engine_under_the_names_on_disk(qwen: Tiny) -> None:
    mllm = qwen.model.mllm
    with safe_open(qwen.folder / "mllm" / "model.safetensors", framework="pt") as stored:
        assert set(checkpoint_names(mllm.state_dict(), mllm.config)) == set(stored.keys())


@pytest.mark.parametrize("task", ["stvg", "rec"])
def test_forward_equals_transformers(qwen: Tiny, task: str) -> None:
    """With the same positions, the scored log-probs are those of Qwen2_5_VLForConditionalGeneration."""
    batch = batch_of(qwen, (task,))
    length, pixels = batch["input_ids"].shape[1] - 4, "pixel_values" if task == "rec" else "pixel_values_videos"
    video = {} if task == "rec" else {"second_per_grid_ts": batch["patch_sec"]}
    assert isinstance(qwen.model.mllm, Qwen2_5_VLForConditionalGeneration)
    with torch.inference_mode():
        theirs = qwen.model.mllm(
            **{name: batch[name][:, :length] for name in ("input_ids", "attention_mask", "mm_token_type_ids")},
            **{pixels: batch["pixel_values"], pixels.replace("pixel_values_videos", "video_grid_thw").replace(
                "pixel_values", "image_grid_thw"): batch["grid_thw"]},
            **video,
        ).logits  # fmt: skip
        ours = qwen.model(**batch).logps_BL
    banned = torch.tensor(qwen.model.banned_ids)
    expected = (
        theirs.index_fill(2, banned, float("-inf"))
        .log_softmax(-1)[0, :-1]
        .gather(1, batch["input_ids"][0, 1:length, None])[:, 0]
    )
    mask = batch["score_mask"][0, 1:length].bool()
    torch.testing.assert_close(ours[0, 1:length][mask], expected[mask], atol=1e-5, rtol=0)


def test_one_prompt_pass_for_two_rows(qwen: Tiny) -> None:
    """Rows that share a video, and those that do not, get the same numbers."""
    shared = batch_of(qwen, ("stvg", "rec"), [0, 0, 1])
    alone = batch_of(qwen, ("stvg", "stvg", "rec"))
    with torch.inference_mode():
        torch.testing.assert_close(qwen.model(**shared).logps_BL, qwen.model(**alone).logps_BL, atol=1e-5, rtol=0)


def test_what_is_generated_is_what_is_scored_highest(qwen: Tiny) -> None:
    """transformers' `generate` has our positions too: alone or in a batch, its greedy tokens are the forward's likeliest."""
    prompts = [qwen.encoder(qwen.of_task(task)[0]) for task in ("stvg", "qa", "rec")]
    eos, banned = qwen.processor.tokenizer.eos_token_id, qwen.model.banned_ids
    written = generate(qwen.model.mllm, prompts, max_new_tokens=6, eos_id=eos, banned_ids=banned)
    assert written[1:2] == generate(qwen.model.mllm, prompts[1:2], max_new_tokens=6, eos_id=eos, banned_ids=banned)
    batch = collate_inputs(prompts, written, [[0]] * 3, num_queries=4, pad_id=0)
    with torch.inference_mode():
        states = []
        qwen.model.mllm.lm_head.register_forward_hook(lambda module, inputs, logits: states.append(logits))
        qwen.model(**batch)
    logits_NV = states[0].index_fill(1, torch.tensor(banned), float("-inf"))
    assert logits_NV.argmax(dim=-1).tolist() == [token for row in written for token in row]


@pytest.mark.slow
def test_supervised_training_goes_through(
    qwen: Tiny, folder: Path, bridge_config: BridgeConfig, tmp_path: Path
) -> None:
    """sft.train with LoRA on all tasks; its checkpoint answers."""
    config = {
        "run": {"out": str(tmp_path / "run"), "wandb": "disabled"},
        "data": qwen.data.model_dump(mode="json"),
        "model": {
            "backbone": str(folder), "dtype": "float32", "bridge": bridge_config.model_dump(mode="json"),
            "lora": {"r": 2, "lora_alpha": 4.0},
        },
        "max_steps": 2,
        "per_device_train_batch_size": 4,
    }  # fmt: skip
    run("sft.train", "--config", str(write_config(tmp_path, "sft.yaml", config)))
    trained, processor = load_checkpoint(tmp_path / "run" / "checkpoint", dtype="float32")
    sample = qwen.of_task("stvg")[0]
    clip = qwen.encoder(sample).clip
    answer = trained.ground(
        processor, query=sample.query, frames_THW3=clip.frames_THW3, frame_idx_T=np.asarray(clip.frame_idx_T),
        fps=sample.fps, num_frames=len(sample.clip), max_new_tokens=4, answer=ANSWER,
    )  # fmt: skip
    assert answer.span == (2, 8) and len(answer.boxes_xyxy_px) == 6
