"""One micro-batch of GRPO: groups of rollouts -> tensors -> forward -> rewards -> loss.

Shapes: P prompts, G completions of each, B = P * G rows, L tokens, F frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.rft import ObjectiveConfig, RFTConfig
from data.answers import Answer, ParseFailure
from data.collate import Batch, QueryCount, collate_inputs, collate_targets
from data.encoding import EncodedPrompt, completion_text
from data.geometry import box_cxcywh_to_xyxy
from data.ragged_boxes import FAR, RaggedBoxes
from data.tube_indices import WrittenTubes
from data.tubes import TubeBatch, answer_frames, tube_batch
from data.types import GroundingSample
from data.written_answers import SPANS, AnswerStyle, ReadAnswers, read_answers, written_beside_truth
from evaluation.vllm_engine import Rollout
from model.criterion import grounding_losses, weigh
from model.grounding_model import GroundingOutput
from rewards.composer import RewardBreakdown
from rft.advantages import TASKS, advantage_scale, group_advantages, has_signal, this_rank
from rft.objective import StepCounts, kl_k3, pathwise_loss, policy_loss, policy_metrics
from rft.step_metrics import reward_metrics


@dataclass(frozen=True)
class RolloutBatch:
    """Whole groups, row by row: row b is completion b % G of prompt b // G.

    inputs: the forward's tensors and the targets of supervised losses. old_logps_BL as sampled. frame_idx_BF,
    valid_BF: absolute frames, and those inside the answered interval. truncated_B: completions that were cut off.
    written_boxes, written: of answers that have their boxes in the text; then frame_idx_BF has none.
    """

    samples: list[GroundingSample]
    answers: list[Answer | ParseFailure]
    inputs: Batch
    old_logps_BL: Tensor
    frame_idx_BF: Tensor
    valid_BF: Tensor
    truncated_B: Tensor
    num_generations: int
    written_boxes: RaggedBoxes | None = None
    written: WrittenTubes | None = None

    @property
    def mask_BL(self) -> Tensor:
        """The sampled tokens."""
        return self.inputs["score_mask"].bool()

    @property
    def tasks_P(self) -> list[str]:
        """Of each group."""
        return [sample.task for sample in self.samples[:: self.num_generations]]

    @property
    def task_numbers_B(self) -> Tensor:
        """Positions in TASKS."""
        return torch.tensor([TASKS.index(sample.task) for sample in self.samples])


def make_batch(
    samples: Sequence[GroundingSample],
    prompts: Sequence[EncodedPrompt],
    groups: Sequence[Sequence[Rollout]],
    processor: object,
    *,
    num_queries: QueryCount,
    temporal_patch_size: int,
    style: AnswerStyle = SPANS,
    supervised_frames: Sequence[np.ndarray] | None = None,
) -> RolloutBatch:
    """Parse every answer once and choose its frames. A prompt's video is encoded once for its group.

    supervised_frames: of each prompt, positions among its sampled frames whose boxes are supervised, beside those of answers.
    """
    owner = [p for p, group in enumerate(groups) for _ in group]
    rollouts = [rollout for group in groups for rollout in group]
    row_samples, row_prompts = [samples[p] for p in owner], [prompts[p] for p in owner]
    texts = [completion_text(processor, rollout.completion_ids) for rollout in rollouts]
    frame_idx = [prompt.clip.frame_idx_T for prompt in row_prompts]
    read = read_answers(row_samples, frame_idx, texts, style)
    asked = _asked_frames(row_samples, row_prompts, read)
    frames = asked
    if supervised_frames is not None:
        frames = [np.union1d(a, supervised_frames[p]) for a, p in zip(asked, owner, strict=True)]
    positions = [row.tolist() for row in frames]
    inputs = _inputs(prompts, rollouts, owner, positions, processor, num_queries)
    targets = collate_targets(row_samples, row_prompts, positions, temporal_patch_size=temporal_patch_size)
    return RolloutBatch(
        samples=row_samples,
        answers=read.answers,
        written_boxes=read.boxes,
        written=written_beside_truth(read, row_samples, frame_idx, style),
        inputs=inputs | targets,
        old_logps_BL=_scatter_logps(inputs["score_mask"].bool(), [rollout.logps for rollout in rollouts]),
        frame_idx_BF=_frame_indices(row_prompts, frames),
        valid_BF=_is_in(frames, asked),
        truncated_B=torch.tensor([rollout.is_truncated for rollout in rollouts]),
        num_generations=len(groups[0]),
    )


def _asked_frames(
    samples: Sequence[GroundingSample], prompts: Sequence[EncodedPrompt], read: ReadAnswers
) -> list[np.ndarray]:
    """Whose boxes an answer needs from the decoder, as positions among the sampled frames; none where it has written them."""
    if read.boxes is not None:
        return [np.empty(0, dtype=np.int64)] * len(samples)
    return [answer_frames(*row) for row in zip(samples, prompts, read.answers, strict=True)]


def _inputs(
    prompts: Sequence[EncodedPrompt],
    rollouts: Sequence[Rollout],
    owner: Sequence[int],
    positions: Sequence[list[int]],
    processor: Any,
    num_queries: QueryCount,
) -> Batch:
    return collate_inputs(
        prompts,
        [rollout.completion_ids for rollout in rollouts],
        positions,
        vision_of_row=owner,
        num_queries=num_queries,
        pad_id=processor.tokenizer.pad_token_id,
    )


def _scatter_logps(mask_BL: Tensor, logps: Sequence[Sequence[float]]) -> Tensor:
    flat = torch.tensor([value for row in logps for value in row])
    return torch.zeros(mask_BL.shape).masked_scatter(mask_BL, flat)


def _frame_indices(prompts: Sequence[EncodedPrompt], frames: Sequence[np.ndarray]) -> Tensor:
    rows = [torch.from_numpy(prompt.clip.frame_idx_T[row]) for prompt, row in zip(prompts, frames, strict=True)]
    # Padding comes after every real frame, so that rows stay ascending.
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=FAR)


def _is_in(frames: Sequence[np.ndarray], asked: Sequence[np.ndarray]) -> Tensor:
    rows = [torch.from_numpy(np.isin(a, b)) for a, b in zip(frames, asked, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def answered_tubes(batch: RolloutBatch, output: GroundingOutput) -> TubeBatch:
    """Answers beside the truth, with the boxes of their text, or else those that this forward gave them."""
    if batch.written_boxes is not None:
        return _written(batch, batch.written_boxes, output.logps_BL.device)
    boxes_BF4 = box_cxcywh_to_xyxy(output.grounding.boxes_cxcywh_NBF4[-1])
    device = boxes_BF4.device
    if boxes_BF4.shape[1] == 0:  # no answer of the micro-batch has a frame
        boxes_BF4 = torch.zeros(len(boxes_BF4), 1, 4, device=device)
        frame_idx, valid = torch.zeros(2, len(boxes_BF4), 1, device=device)
        return tube_batch(batch.samples, batch.answers, boxes_BF4, frame_idx, valid.bool())
    return tube_batch(batch.samples, batch.answers, boxes_BF4, batch.frame_idx_BF.to(device), batch.valid_BF.to(device))


def _written(batch: RolloutBatch, boxes: RaggedBoxes, device: torch.device) -> TubeBatch:
    padded = (tensor.to(device) for tensor in boxes.padded())
    return tube_batch(batch.samples, batch.answers, *padded, written=batch.written)


def rollout_loss(
    batch: RolloutBatch,
    output: GroundingOutput,
    rewards: RewardBreakdown,
    scale_of_task: Callable[[str], float],
    counts: StepCounts,
    config: RFTConfig,
    ref_logps_BL: Tensor | None = None,
    *,
    signal: Sequence[bool] | None = None,
    all_ranks: Callable[[Tensor], Tensor] = this_rank,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one micro-batch and its metrics. scale_of_task: the running standard deviation of its rewards, of all ranks.

    ref_logps_BL: of the reference policy, where the objective has a KL term. signal: which groups have one, where the step's
    counts already follow from it; None: as these rewards say. all_ranks: gathers a tensor from every rank, each of which
    must call; `scale_rewards=batch` alone does.
    """
    objective = config.objective
    mask_BL = batch.mask_BL.to(output.logps_BL.device)
    old_BL = batch.old_logps_BL.to(output.logps_BL.device)
    rewards_PG = rewards.total_B.detach().reshape(-1, batch.num_generations)
    scale = advantage_scale(rewards_PG, batch.tasks_P, objective.scale_rewards, scale_of_task, all_ranks)
    advantages_B = group_advantages(rewards_PG, scale=scale).flatten()
    signal_P = _signal(batch, rewards, config) if signal is None else torch.tensor(signal, device=mask_BL.device)
    trained_BL = _trained(mask_BL, batch, signal_P, objective)
    loss = policy_loss(output.logps_BL, old_BL, advantages_B, trained_BL, counts, objective, ref_logps_BL)
    metrics = {"loss/policy": float(loss.detach()), "policy/scale": float(scale.double().mean())}
    metrics["reward/no_signal_groups"] = float((~signal_P).double().mean())
    if objective.decoder_update == "pathwise":
        boxes = _pathwise(batch, output, rewards, scale_of_task, counts, objective)
        loss, metrics["loss/pathwise"] = loss + boxes, float(boxes.detach())
    elif objective.decoder_update == "supervised":
        boxes = _supervised(batch, output, counts, config)
        loss, metrics["loss/supervised"] = loss + boxes, float(boxes.detach())
    if ref_logps_BL is not None and bool(mask_BL.any()):
        metrics["policy/kl"] = float(kl_k3(output.logps_BL, ref_logps_BL).detach()[mask_BL].mean())
    metrics |= reward_metrics(rewards, batch.num_generations)
    return loss, metrics | policy_metrics(output.logps_BL, old_BL, output.entropies_BL, mask_BL)


def _signal(batch: RolloutBatch, rewards: RewardBreakdown, config: RFTConfig) -> Tensor:
    paid_PGK = rewards.paid_BK.unflatten(0, (-1, batch.num_generations))
    return has_signal(paid_PGK, rewards.names, config.signal_terms)


def _trained(mask_BL: Tensor, batch: RolloutBatch, signal_P: Tensor, objective: ObjectiveConfig) -> Tensor:
    """The sampled tokens that the policy loss is about."""
    if objective.mask_truncated_completions:
        mask_BL = mask_BL & ~batch.truncated_B.to(mask_BL.device)[:, None]
    if objective.zero_variance != "keep":
        mask_BL = mask_BL & signal_P.repeat_interleave(batch.num_generations)[:, None]
    return mask_BL


def _supervised(batch: RolloutBatch, output: GroundingOutput, counts: StepCounts, config: RFTConfig) -> Tensor:
    """The box losses of supervised training on this micro-batch's share of the step."""
    device = output.logps_BL.device
    targets = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    boxes = weigh(grounding_losses(output.grounding, targets, counts.targets), config.loss)
    num_drawn = counts.num_completions if counts.num_drawn is None else counts.num_drawn
    share = len(batch.answers) / num_drawn
    return boxes if counts.targets is not None else boxes * share


def _pathwise(
    batch: RolloutBatch,
    output: GroundingOutput,
    rewards: RewardBreakdown,
    scale_of_task: Callable[[str], float],
    counts: StepCounts,
    objective: ObjectiveConfig,
) -> Tensor:
    """The sum over tasks of each one's pathwise term, with its own scale."""
    device = output.logps_BL.device
    old_BL, mask_BL = batch.old_logps_BL.to(device), batch.mask_BL.to(device)
    total = output.logps_BL.new_zeros(())
    for task in dict.fromkeys(sample.task for sample in batch.samples):
        rows = [row for row, sample in enumerate(batch.samples) if sample.task == task]
        given = (rewards.total_B[rows], output.logps_BL[rows], old_BL[rows], mask_BL[rows])
        total = total + pathwise_loss(*given, counts, objective, scale=scale_of_task(task))
    return total
