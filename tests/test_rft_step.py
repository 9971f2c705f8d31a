"""One micro-batch of GRPO on hand-written rollouts: what is scored, rewarded and trained under each decoder_update."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import DECODED, Tiny

from configs.rft import ObjectiveConfig, RFTConfig
from data.answers import format_answer
from data.dataset import model_inputs, training_frames
from data.encoding import EncodedPrompt, text_ids
from data.geometry import box_xyxy_to_cxcywh
from data.types import GroundingSample
from evaluation.vllm_engine import Rollout
from model.build import load_checkpoint
from model.grounding_model import GroundingModel
from rewards.composer import RewardComposer
from rft.advantages import RunningStd
from rft.objective import StepCounts
from rft.step import RolloutBatch, answered_tubes, make_batch, rollout_loss
from rft.step_metrics import step_counts

HALF = RunningStd(initial=0.5, decay=0.9, floor=0.05).scale
TEXTS = ["<time> 0.0 - 4.0 </time>", "", "what?", "<time> 3.0 - 1.0 </time>"]


def batch_of(
    tiny: Tiny, samples: list[GroundingSample], config: RFTConfig, texts: list[str] | None = None
) -> RolloutBatch:
    """Groups of the true answer and the given texts, with log-probs of -2 as if sampled."""
    groups = []
    for sample in samples:
        answers = [format_answer(sample, decimals=2), *(TEXTS if texts is None else texts)]
        ids = [text_ids(tiny.processor, text) for text in answers]
        groups.append([Rollout(row, [-2.0] * len(row), False, 0) for row in ids])
    prompts = [tiny.encoder(sample) for sample in samples]
    return make_batch(
        samples, prompts, groups, tiny.processor,
        num_queries=tiny.model.num_queries, temporal_patch_size=2,
        supervised_frames=frames_of(samples, prompts, config),
    )  # fmt: skip


def frames_of(
    samples: list[GroundingSample], prompts: list[EncodedPrompt], config: RFTConfig
) -> list[np.ndarray] | None:
    """Of the box losses, where the objective has them."""
    if config.objective.decoder_update != "supervised":
        return None
    rng = np.random.default_rng(0)
    return [training_frames(*row, config.frames, rng) for row in zip(samples, prompts, strict=True)]


def step(model: GroundingModel, batch: RolloutBatch, config: RFTConfig) -> tuple[torch.Tensor, dict[str, float]]:
    output = model(**model_inputs(batch.inputs))
    rewards = RewardComposer(config.rewards)(answered_tubes(batch, output))
    counts = StepCounts(len(batch.answers), int(batch.mask_BL.sum()), float(batch.mask_BL.sum()), 16)
    return rollout_loss(batch, output, rewards, HALF, counts, config)


def with_objective(config: RFTConfig, **objective: object) -> RFTConfig:
    return config.model_copy(update={"objective": ObjectiveConfig(**objective)})  # type: ignore[arg-type]


def test_batch_of_rollouts(tiny: Tiny, rft_config: RFTConfig) -> None:
    """Old log-probs lie on the sampled tokens; frames are those of the answered interval; failures have none."""
    samples = tiny.of_task("stvg")[:2]
    batch = batch_of(tiny, samples, rft_config)
    assert torch.equal(batch.old_logps_BL != 0, batch.mask_BL)
    assert batch.inputs["pixel_values"].shape[0] == sum(tiny.encoder(s).pixel_values_VC.shape[0] for s in samples)
    for row, sample in ((0, samples[0]), (5, samples[1])):
        assert batch.frame_idx_BF[row][batch.valid_BF[row]].tolist() == list(range(sample.span.start, sample.span.end))
    assert batch.valid_BF[1].sum() == 16 and not batch.valid_BF[2:5].any()


def test_rewards_of_the_batch(model: GroundingModel, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Format 2 of 5; temporal 1 for the truth, its share for the whole video, 0 for the failures."""
    samples = tiny.of_task("stvg")[:1]
    batch = batch_of(tiny, samples, rft_config)
    _, metrics = step(model, batch, rft_config)
    share = len(samples[0].span) / 16
    assert metrics["reward/format"] == pytest.approx(2 / 5)
    assert metrics["reward/temporal"] == pytest.approx((1 + share) / 5, abs=1e-6)
    assert metrics["reward/zero_std_groups"] == 0


@pytest.mark.parametrize("grounder", DECODED)
@pytest.mark.parametrize("decoder_update", ["frozen", "supervised", "pathwise"])
def test_what_is_trained(decoder_update: str, grounder: str, tiny_of: dict[str, Tiny], rft_config: RFTConfig) -> None:
    """The text always; boxes only with a gradient of their own."""
    tiny = tiny_of[grounder]
    model, _ = load_checkpoint(tiny.folder, dtype="float32")
    if decoder_update == "frozen":
        model.grounder.requires_grad_(False)
    config = with_objective(rft_config, decoder_update=decoder_update)
    loss, _ = step(model, batch_of(tiny, tiny.of_task("stvg")[:2], config), config)
    loss.backward()
    assert model.mllm.lm_head.weight.grad is not None and model.mllm.lm_head.weight.grad.abs().any()
    heads = [parameter for name, parameter in model.grounder.named_parameters() if "box" in name]
    taught = [head.grad is not None and bool(head.grad.abs().any()) for head in heads]
    assert taught == [decoder_update != "frozen"] * len(heads) and heads


def test_pathwise_follows_the_reward(model: GroundingModel, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Twenty small steps of the decoder on the true answer and the whole video raise the vIoU reward.

    The first guess covers the object twice over: where boxes do not touch, IoU has no gradient.
    """
    samples = tiny.of_task("stvg")[:1]
    for head in model.grounder.decoder.box_heads:
        torch.nn.init.zeros_(head[-1].weight)
    boxes_px = torch.tensor([box for box in samples[0].boxes_xyxy_px or () if box is not None])
    guess = box_xyxy_to_cxcywh(boxes_px.mean(dim=0) / 64) * torch.tensor([1.0, 1.0, 2.0, 2.0])
    model.grounder.decoder.first_box_4 = torch.logit(guess.clamp(0.01, 0.99))
    batch = batch_of(tiny, samples, rft_config, texts=["<time> 0.0 - 4.0 </time>"])
    with torch.no_grad():  # on-policy: the sequence ratios are 1
        batch = replace(batch, old_logps_BL=model(**model_inputs(batch.inputs)).logps_BL)
    optimizer = torch.optim.Adam(model.grounder.decoder.parameters(), lr=2e-3)
    seen = []
    for _ in range(20):
        loss, metrics = step(model, batch, rft_config)
        seen.append(metrics["reward/viou"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[-1] > seen[0] + 0.05


def test_a_batch_without_any_answer_still_trains(model: GroundingModel, tiny: Tiny, rft_config: RFTConfig) -> None:
    """No frame at all: reward 0, finite loss, a gradient that is zero."""
    sample = tiny.of_task("stvg")[0]
    ids = text_ids(tiny.processor, "no")
    groups = [[Rollout(ids, [-1.0] * len(ids), False, 0)] * 2]
    prompts = [tiny.encoder(sample)]
    batch = make_batch(
        [sample], prompts, groups, tiny.processor, num_queries=tiny.model.num_queries, temporal_patch_size=2
    )
    loss, metrics = step(model, batch, rft_config)
    loss.backward()
    assert metrics["reward/total"] == 0 and torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_two_micro_batches_give_the_gradient_of_one(model: GroundingModel, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Counts are the step's and the scale is constant within it, so the parts' gradients add up."""
    samples = tiny.of_task("stvg")[:2]
    batches = [batch_of(tiny, part, rft_config) for part in (samples, samples[:1], samples[1:])]
    counts = StepCounts(len(batches[0].answers), int(batches[0].mask_BL.sum()), float(batches[0].mask_BL.sum()), 16)

    def gradient(parts: list[RolloutBatch]) -> torch.Tensor:
        model.zero_grad()
        for part in parts:
            output = model(**model_inputs(part.inputs))
            rewards = RewardComposer(rft_config.rewards)(answered_tubes(part, output))
            rollout_loss(part, output, rewards, HALF, counts, rft_config)[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(batches[:1]), gradient(batches[1:]), atol=1e-5, rtol=1e-4)


WRONG, UNREADABLE = "<time> 0.0 - 0.25 </time>", "what?"


def group_of(tiny: Tiny, texts: list[str]) -> list[Rollout]:
    rows = [text_ids(tiny.processor, text) for text in texts]
    return [Rollout(ids, [-2.0] * len(ids), False, 0) for ids in rows]


@pytest.mark.parametrize(("zero_variance", "group"), [("keep", "both"), ("mask", "first"), ("drop", "first alone")])
def test_groups_without_signal(
    zero_variance: str, group: str, model: GroundingModel, tiny: Tiny, rft_config: RFTConfig
) -> None:
    """The second group has an answer that is wrong and one that is none: its rewards differ by the format alone.

    Kept, its tokens have a gradient; masked, the gradient is that of the first group in a step of four completions; dropped,
    that of the first group in a step of its own.
    """
    config = with_objective(rft_config, decoder_update="frozen", zero_variance=zero_variance)
    samples = [sample for sample in tiny.of_task("stvg") if sample.span is not None and sample.span.start >= 2][:2]
    groups = [group_of(tiny, [format_answer(samples[0], decimals=2), WRONG]), group_of(tiny, [WRONG, UNREADABLE])]

    def gradient(count: int, num_completions: int, changed: RFTConfig) -> torch.Tensor:
        prompts = [tiny.encoder(sample) for sample in samples[:count]]
        batch = make_batch(
            samples[:count], prompts, groups[:count], tiny.processor, num_queries=4, temporal_patch_size=2
        )
        output = model(**model_inputs(batch.inputs))
        rewards = RewardComposer(changed.rewards)(answered_tubes(batch, output))
        model.zero_grad()
        rollout_loss(batch, output, rewards, HALF, StepCounts(num_completions, 0, 0.0, 16), changed)[0].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    kept = config.model_copy(update={"objective": config.objective.model_copy(update={"zero_variance": "keep"})})
    expected = {"both": (2, 4), "first": (1, 4), "first alone": (1, 2)}
    step_of = step_counts(groups, [True, False], config, lambda value: value)
    assert step_of.num_completions == expected["both" if group == "first" else group][1]
    ours = gradient(2, int(step_of.num_completions), config)
    torch.testing.assert_close(ours, gradient(*expected[group], kept), atol=1e-6, rtol=1e-4)
    assert (gradient(2, 4, kept) - gradient(1, 4, kept)).norm() > 0.01 * ours.norm()


def test_the_decoder_keeps_the_groups_that_the_policy_drops(
    model: GroundingModel, tiny: Tiny, rft_config: RFTConfig
) -> None:
    """The supervised box loss of a step is the same, however many groups are left for the text."""
    sample = next(sample for sample in tiny.of_task("stvg") if sample.span is not None and sample.span.start >= 2)
    groups = [group_of(tiny, [format_answer(sample, decimals=2), WRONG]), group_of(tiny, [WRONG, UNREADABLE])]
    prompts = [tiny.encoder(sample)] * 2

    def box_loss(zero_variance: str) -> float:
        config = with_objective(rft_config, decoder_update="supervised", zero_variance=zero_variance)
        batch = make_batch(
            [sample] * 2, prompts, groups, tiny.processor, num_queries=4, temporal_patch_size=2,
            supervised_frames=frames_of([sample] * 2, prompts, config),
        )  # fmt: skip
        output = model(**model_inputs(batch.inputs))
        rewards = RewardComposer(config.rewards)(answered_tubes(batch, output))
        counts = step_counts(groups, [True, False], config, lambda value: value)
        return rollout_loss(batch, output, rewards, HALF, counts, config)[1]["loss/supervised"]

    assert box_loss("drop") == pytest.approx(box_loss("keep"), rel=1e-5)


def test_dropped_groups_are_counted_over_ranks(rft_config: RFTConfig) -> None:
    """Three of four groups here; the other rank keeps one: 2 groups of 2 on average, so that DDP's mean is over all 8."""
    groups = [[Rollout([1, 2], [0.0, 0.0], False, 0)] * 2] * 4
    config = with_objective(rft_config, decoder_update="frozen", zero_variance="drop")
    counts = step_counts(groups, [True, True, False, True], config, lambda value: (6 + 2) / 2 if value == 6 else 8.0)
    assert (counts.num_completions, counts.num_tokens, counts.num_tokens_mean) == (4.0, 12, 8.0)
    nothing = step_counts(groups, [False] * 4, config, lambda value: value)
    assert nothing.num_completions == 1.0 and nothing.num_tokens == 0
