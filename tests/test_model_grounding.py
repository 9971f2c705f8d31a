"""The root module: invariances, what depends on what, checkpoints, and that it can learn a batch by heart."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import DECODED, GROUNDED, Tiny

from configs.model import InterleavedConfig, LossConfig
from data.answers import format_answer
from data.collate import collate_inputs, collate_targets
from data.dataset import model_inputs
from data.encoding import EncodedPrompt, text_ids
from data.frame_sampling import frames_in_span
from data.types import GroundingSample
from evaluation.metrics import score
from evaluation.predictor import Predictor
from model.backbone import encode_vision, hidden_states
from model.build import load_checkpoint, save_checkpoint
from model.criterion import grounding_losses, supervised_loss, weigh
from model.grounding_model import GroundingModel, GroundingOutput
from model.interleaved_grounder import InterleavedGrounder


@pytest.fixture(params=GROUNDED)
def tiny(request: pytest.FixtureRequest, tiny_of: dict[str, Tiny]) -> Tiny:
    """Every test here is of every grounder."""
    return tiny_of[request.param]


def collate(tiny: Tiny, samples: list[GroundingSample], frames: list[list[int]]) -> dict:
    prompts = [tiny.encoder(sample) for sample in samples]
    answers = [text_ids(tiny.processor, format_answer(sample, decimals=2)) for sample in samples]
    pad_id = tiny.processor.tokenizer.pad_token_id
    return collate_inputs(prompts, answers, frames, num_queries=tiny.model.num_queries, pad_id=pad_id)


def forward(model: GroundingModel, batch: dict) -> GroundingOutput:
    with torch.inference_mode():
        return model(**batch)


def mixed(tiny: Tiny) -> list[GroundingSample]:
    return [tiny.of_task("stvg")[0], tiny.of_task("rec")[1], tiny.of_task("qa")[2], tiny.of_task("stvg")[3]]


def test_batched_equals_single(tiny: Tiny) -> None:
    """Rows of different length, tasks and modality do not disturb each other, and padding is not seen."""
    samples, frames = mixed(tiny), [[0, 3, 7], [0], [], [2, 5, 6, 9]]
    together = forward(tiny.model, collate(tiny, samples, frames))
    for b, (sample, chosen) in enumerate(zip(samples, frames, strict=True)):
        batch = collate(tiny, [sample], [chosen])
        alone = forward(tiny.model, batch)
        length = batch["input_ids"].shape[1]
        torch.testing.assert_close(together.logps_BL[b, :length], alone.logps_BL[0], atol=1e-5, rtol=0)
        ours = together.grounding.boxes_cxcywh_NBF4[:, b, : len(chosen)]
        torch.testing.assert_close(ours, alone.grounding.boxes_cxcywh_NBF4[:, 0, : len(chosen)], atol=1e-5, rtol=0)


def test_extra_padding_changes_nothing(tiny: Tiny) -> None:
    """Thirty more padding tokens and five more padding frames."""
    batch = collate(tiny, mixed(tiny), [[0, 3], [0], [], [2, 5]])
    longer = dict(batch)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "score_mask", "query_mask"):
        longer[name] = torch.nn.functional.pad(batch[name], (0, 30))
    longer["frame_position"] = torch.nn.functional.pad(batch["frame_position"], (0, 5), value=-1)
    longer["frame_time_sec"] = torch.nn.functional.pad(batch["frame_time_sec"], (0, 5))
    a, b = forward(tiny.model, batch), forward(tiny.model, longer)
    width = batch["input_ids"].shape[1]
    torch.testing.assert_close(a.logps_BL, b.logps_BL[:, :width], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        a.grounding.boxes_cxcywh_NBF4, b.grounding.boxes_cxcywh_NBF4[:, :, :2], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_that_share_a_prompt_equal_rows_that_repeat_it(
    checkpointing: bool, model: GroundingModel, tiny: Tiny
) -> None:
    """Groups of three and one, video and prompt computed once for each: the same log-probs, boxes and gradients.

    Gradient checkpointing forbids the cache that this takes; then the rows of a group are packed behind their prompt.

    Prompts and answers of different lengths, so that both are padded, and rows of a group that are not neighbours.
    """
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    samples = [tiny.of_task("stvg")[0], replace(tiny.of_task("stvg")[3], query="what is that?")]
    prompts = [tiny.encoder(sample) for sample in samples]
    texts = ["<time> 0.0 - 2.0 </time>", "what?", "<time> 1.25 - 3.75 </time>", ""]
    answers, owner = [text_ids(tiny.processor, text) for text in texts], [0, 1, 0, 0]
    args = {"num_queries": tiny.model.num_queries, "pad_id": tiny.processor.tokenizer.pad_token_id}
    frames = [[1, 2], [0], [3, 4, 5], []]
    shared = collate_inputs(prompts, answers, frames, vision_of_row=owner, **args)
    repeated = collate_inputs([prompts[v] for v in owner], answers, frames, **args)
    assert len(prompts[0].input_ids_L) != len(prompts[1].input_ids_L)
    assert shared["pixel_values"].shape[0] * 2 == repeated["pixel_values"].shape[0]
    (a, grad_a), (b, grad_b) = (_output_and_gradient(model, batch) for batch in (shared, repeated))
    torch.testing.assert_close(a.logps_BL, b.logps_BL, atol=1e-6, rtol=1e-6)
    real = shared["frame_position"] >= 0
    for ours, theirs in zip(a.grounding[:2], b.grounding[:2], strict=True):
        torch.testing.assert_close(ours[:, real], theirs[:, real], atol=1e-5, rtol=0)
    if a.grounding.alignment_BT is not None:
        torch.testing.assert_close(a.grounding.alignment_BT, b.grounding.alignment_BT, atol=1e-5, rtol=0)
    assert grad_a.keys() == grad_b.keys()
    # Some gradients are exactly zero by theory, such as those of a key's bias: their rounding counts against the whole.
    whole = torch.stack([gradient.norm() for gradient in grad_b.values()]).norm()
    for name, gradient in grad_b.items():
        assert (grad_a[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-7 * whole, name


def _output_and_gradient(model: GroundingModel, batch: dict) -> tuple[GroundingOutput, dict[str, torch.Tensor]]:
    output, real = model(**batch), batch["frame_position"] >= 0
    model.zero_grad()
    boxes, alignment = output.grounding.boxes_cxcywh_NBF4[:, real], output.grounding.alignment_BT
    total = output.logps_BL.sum() + boxes.square().sum()
    (total if alignment is None else total + alignment.sigmoid().sum()).backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_zeroing_the_video_changes_the_log_probs(tiny: Tiny) -> None:
    """Pixels reach the text."""
    batch = collate(tiny, [tiny.of_task("stvg")[0]], [[0]])
    blank = batch | {"pixel_values": torch.zeros_like(batch["pixel_values"])}
    a, b = forward(tiny.model, batch), forward(tiny.model, blank)
    assert (a.logps_BL - b.logps_BL).abs().max() > 1e-2


@pytest.mark.parametrize("tiny", DECODED, indirect=True)
def test_changing_the_query_changes_the_boxes(tiny: Tiny) -> None:
    """The sentence reaches the decoder, with the same answer and the same frames."""
    sample = tiny.of_task("stvg")[0]
    other = replace(sample, query="the purple triangle moves down")
    assert other.query != sample.query
    a, b = (forward(tiny.model, collate(tiny, [s], [[0, 4]])).grounding.boxes_cxcywh_NBF4[-1] for s in (sample, other))
    assert (a - b).abs().max() > 1e-4


@pytest.mark.parametrize("tiny", DECODED, indirect=True)
def test_a_frames_box_does_not_depend_on_the_other_frames(tiny: Tiny) -> None:
    """Frame 4 alone, or among others."""
    sample = tiny.of_task("stvg")[0]
    alone = forward(tiny.model, collate(tiny, [sample], [[4]])).grounding.boxes_cxcywh_NBF4[-1, 0, 0]
    among = forward(tiny.model, collate(tiny, [sample], [[1, 4, 9]])).grounding.boxes_cxcywh_NBF4[-1, 0, 1]
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=0)


@pytest.mark.parametrize("tiny", DECODED, indirect=True)
def test_every_parameter_of_the_grounder_is_trained(model: GroundingModel, tiny: Tiny) -> None:
    """No dead weight: the supervised loss reaches all of it."""
    samples, frames = tiny.of_task("stvg")[:2], [[0, 3, 7], [1, 2, 8]]
    prompts = [tiny.encoder(sample) for sample in samples]
    targets = collate_targets(samples, prompts, frames, temporal_patch_size=2)
    output = model(**collate(tiny, samples, frames))
    weigh(grounding_losses(output.grounding, targets), LossConfig()).backward()
    dead = [name for name, p in model.grounder.named_parameters() if p.grad is None or not p.grad.abs().any()]
    # A softmax does not see what is added to all of its keys alike.
    assert [name for name in dead if not name.endswith("key.bias")] == []


def test_checkpoint_round_trip_is_bit_equal(model: GroundingModel, tiny: Tiny, tmp_path: Path) -> None:
    """Save, load: same tensors under the same names."""
    save_checkpoint(model, tiny.processor, tmp_path)
    loaded, _ = load_checkpoint(tmp_path, dtype="float32")
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("tiny", DECODED, indirect=True)
@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_checkpoint_is_loaded_strictly(change: str, tiny: Tiny, tmp_path: Path) -> None:
    """A missing or an unknown key is an error that names it."""
    save_checkpoint(tiny.model, tiny.processor, tmp_path)
    tensors = load_file(tmp_path / "grounder.safetensors")
    if change == "missing":
        del tensors[next(name for name in tensors if name.startswith("queries."))]
    else:
        tensors["queries.extra"] = torch.zeros(1)
    save_file(tensors, tmp_path / "grounder.safetensors")
    with pytest.raises(RuntimeError, match=r"queries\.(embedding|weight|extra)"):
        load_checkpoint(tmp_path, dtype="float32")


def test_placeholders_must_match_the_pixels(tiny: Tiny) -> None:
    """A prompt whose pixels belong to another grid is refused before it trains on nonsense."""
    prompt = tiny.encoder(tiny.of_task("stvg")[0])
    broken = replace(prompt, pixel_values_VC=prompt.pixel_values_VC[:-4])
    with pytest.raises(ValueError, match="placeholder tokens do not match"):
        collate_inputs([broken], [[1]], [[0]], num_queries=4, pad_id=0)


@pytest.mark.parametrize("tiny", ["bridge"], indirect=True)
def test_the_decoder_overfits_one_batch(model: GroundingModel, tiny: Tiny) -> None:
    """Four videos, true answers given: m_vIoU >= 0.95. Only the grounder is trained, on fixed states of the MLLM."""
    torch.manual_seed(0)
    samples = tiny.of_task("stvg")[:4]
    prompts = [tiny.encoder(sample) for sample in samples]
    frames = [list(range(len(prompt.clip.frame_idx_T))) for prompt in prompts]
    batch = collate(tiny, samples, frames)
    targets = collate_targets(samples, prompts, frames, temporal_patch_size=model.temporal_patch_size)
    with torch.no_grad():
        vision = encode_vision(model.mllm, batch["pixel_values"], batch["grid_thw"])
        states = hidden_states(model.mllm, batch, vision, model.grounder.queries.embedding.weight, model.taps)
    num_steps = 700
    optimizer = torch.optim.AdamW(model.grounder.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    for _ in range(num_steps):
        grounding = model.grounder(states, vision, batch)
        loss = weigh(grounding_losses(grounding, targets), LossConfig())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.grounder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.grounder.queries.embedding.weight.data.copy_(tiny.model.grounder.queries.embedding.weight)
    predictor = Predictor(model, tiny.encoder, _true_answers(tiny, samples, prompts))
    assert score(samples, predictor(samples)).viou.mean() >= 0.95


@pytest.mark.parametrize("attention", ["free", "learned"])
@pytest.mark.parametrize("tiny", ["interleaved"], indirect=True)
def test_the_whole_model_overfits_one_batch(
    attention: Literal["free", "learned"], model: GroundingModel, tiny: Tiny
) -> None:
    """Four videos, true answers given: m_vIoU >= 0.95, where the grounder reads nothing but the LLM's states."""
    torch.manual_seed(0)
    config = InterleavedConfig(attention=attention, width=64, num_heads=4, mlp_width=64)
    model.grounder = InterleavedGrounder.build(model.mllm, config.model_dump())
    model.train()
    samples = tiny.of_task("stvg")[:4]
    prompts = [tiny.encoder(sample) for sample in samples]
    frames = [
        frames_in_span(prompt.clip.frame_idx_T, sample.span).tolist()
        for prompt, sample in zip(prompts, samples, strict=True)
        if sample.span is not None
    ]
    batch = collate(tiny, samples, frames)
    batch |= collate_targets(samples, prompts, frames, temporal_patch_size=model.temporal_patch_size)
    num_steps = 150
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    for _ in range(num_steps):
        loss, _ = supervised_loss(model(**model_inputs(batch)), batch, LossConfig())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    predictor = Predictor(model.eval(), tiny.encoder, _true_answers(tiny, samples, prompts))
    assert score(samples, predictor(samples)).viou.mean() >= 0.95


def _true_answers(tiny: Tiny, samples: list[GroundingSample], prompts: list[EncodedPrompt]) -> object:
    answers = [text_ids(tiny.processor, format_answer(sample, decimals=2)) for sample in samples]
    return lambda asked: answers


@pytest.mark.parametrize("mode", ["autocast", "bfloat16 weights"])
def test_bfloat16_is_close(mode: str, tiny: Tiny) -> None:
    """Training computes under autocast on float32 weights; evaluation may load the MLLM in bfloat16."""
    samples, frames = mixed(tiny), [[0, 3], [0], [], [2, 5]]
    batch = collate(tiny, samples, frames)
    exact = forward(tiny.model, batch)
    if mode == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            rough = forward(tiny.model, batch)
    else:
        rough = forward(load_checkpoint(tiny.folder, dtype="bfloat16")[0], batch)
    assert rough.logps_BL.dtype == rough.grounding.boxes_cxcywh_NBF4.dtype == torch.float32
    mask = batch["score_mask"].bool()
    assert (rough.logps_BL - exact.logps_BL)[mask].abs().mean() < 0.05
    real = batch["frame_position"] >= 0
    boxes = (rough.grounding.boxes_cxcywh_NBF4 - exact.grounding.boxes_cxcywh_NBF4)[:, real]
    assert boxes.abs().sum() <= 0.05 * boxes.numel()
