"""A step of a GRPO trainer on written rollouts: what it accumulates, without an engine.

    torchrun --nproc_per_node 2 tests/rft_without_engine.py CONFIG.json

compares, on two ranks with groups of different lengths, a step with one of all groups on one rank and, where the config has a
budget of tokens, with one that is cut by it. Prints of each rank both errors, how many groups have signal (`kept`), its
`micro_batches`, and how many it would need `alone`.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.checkpoints import CheckpointStore
from configs.rft import RFTConfig
from data.answers import format_answer
from data.encoding import text_ids
from data.types import GroundingSample
from evaluation.vllm_engine import Rollout
from rft.group_cuts import fewest_parts, tokens_of_groups
from rft.micro_batches import inputs_of, micro_batches
from rft.resampling import RolledOut
from rft.rollout import EngineClient
from rft.sampling import StepPrompts
from rft.step import answered_tubes, rollout_loss
from rft.step_metrics import step_counts
from rft.step_record import StepRecord
from rft.trainer import GRPOTrainer

NEVER_ASKED: Any = None


def trainer_of(config: RFTConfig) -> GRPOTrainer:
    """One whose engine is never asked."""
    engine = EngineClient(NEVER_ASKED, timeout_sec=1.0)
    return GRPOTrainer(config, engine, None, CheckpointStore(config.run.out, config.checkpoints), None)


def with_fields(config: RFTConfig, **fields: object) -> RFTConfig:
    """Validated again. The rollouts below are nobody's samples, so their log-probs may be anything."""
    rollout = config.rollout.model_copy(update={"max_logprob_mismatch": 100.0})
    return RFTConfig.model_validate((config.model_copy(update={"rollout": rollout} | fields)).model_dump())


def written(trainer: GRPOTrainer, samples: Sequence[GroundingSample], lengths: Sequence[int]) -> list[RolledOut]:
    """A group for each sample, with so many words more in its question and its longest answer."""
    learner, size = trainer.learner, trainer.config.rollout.num_generations
    rolled = []
    for number, (sample, extra) in enumerate(zip(samples, lengths, strict=True)):
        sample = replace(sample, query=sample.query + " and" * extra)
        texts = [
            format_answer(sample, decimals=2),
            *(f"<time> 0.{i} - {1 + i}.{number} </time>" for i in range(1, size)),
        ]
        texts[-1] += " and" * extra
        rows = [text_ids(learner.processor, text) for text in texts]
        rolled.append(
            RolledOut(sample, learner.encoder(sample), [Rollout(ids, [-6.0] * len(ids), False, 0) for ids in rows])
        )
    return rolled


def accumulated(
    trainer: GRPOTrainer, rolled: Sequence[RolledOut], config: RFTConfig, signal: Sequence[bool] | None = None
) -> tuple[dict[str, Tensor], StepRecord]:
    """Gradients by name, the mean over ranks, and the record of one step as `config` cuts it."""
    trainer.config = config
    trainer.learner.optimizer.zero_grad()
    record = trainer.accumulate(rolled, signal, 0)
    named = trainer.learner.unwrapped.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}, record


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of two gradients of the whole model, over the norm of the second."""
    assert ours.keys() == theirs.keys()
    norm = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    return float(torch.stack([(ours[name] - gradient).norm() for name, gradient in theirs.items()]).norm() / norm)


def of_one_rank(trainer: GRPOTrainer, rolled: Sequence[RolledOut], signal: Sequence[bool]) -> dict[str, Tensor]:
    """The gradient of a step of these groups without other ranks, in one micro-batch and without boxes that are supervised."""
    learner, config = trainer.learner, trainer.config
    whole = config.model_copy(update={"max_tokens_per_micro_batch": None, "prompts_per_micro_batch": len(rolled)})
    ((_, batch),) = micro_batches(rolled, learner, whole)
    counts = step_counts([one.group for one in rolled], signal, config, lambda value: value)
    learner.unwrapped.zero_grad()
    output = learner.unwrapped(**inputs_of(batch, learner.accelerator.device))
    rewards = trainer.rewards(answered_tubes(batch, output))
    rollout_loss(batch, output, rewards, trainer.running_std.scale, counts, config)[0].backward()
    return {name: p.grad.clone() for name, p in learner.unwrapped.named_parameters() if p.grad is not None}


GROUPS = (([0, 0, 1, 2], [3]), ([0, 40, 41, 42], [0, 2, 3]))
"""Of each rank: words more in its questions, and groups without signal where those are dropped."""


def groups_of_rank(trainer: GRPOTrainer, samples: Sequence[GroundingSample], rank: int) -> list[RolledOut]:
    lengths, alike = GROUPS[rank]
    rolled = written(trainer, samples, lengths)
    if trainer.config.objective.zero_variance == "drop":
        for position in alike:
            rolled[position] = replace(rolled[position], group=[rolled[position].group[0]] * 4)
    return rolled


def main() -> None:
    """One rank: the second has the longer questions, and more groups without signal."""
    config = RFTConfig.model_validate_json(Path(sys.argv[1]).read_text())
    trainer, rank = trainer_of(config.model_copy(update={"max_tokens_per_micro_batch": None})), int(os.environ["RANK"])
    samples = [sample for sample in StepPrompts(config, trainer.learner).samples if sample.task == "stvg"][:4]
    everyones = [groups_of_rank(trainer, samples, other) for other in range(2)]
    rolled, signals = everyones[rank], [trainer.sampler.signal(groups) for groups in everyones]
    whole, _ = accumulated(trainer, rolled, trainer.config, signals[rank])
    one_rank = of_one_rank(trainer, [one for groups in everyones for one in groups], [*signals[0], *signals[1]])
    found: dict[str, float] = {"one_rank_error": largest_difference(whole, one_rank), "kept": sum(signals[rank])}
    if config.max_tokens_per_micro_batch is not None:
        found |= cut_by_tokens(trainer, rolled, config, config.max_tokens_per_micro_batch, signals[rank], whole)
    sys.stdout.write(f"rank {json.dumps(found)}\n")


def cut_by_tokens(
    trainer: GRPOTrainer,
    rolled: Sequence[RolledOut],
    config: RFTConfig,
    budget: int,
    signal: Sequence[bool],
    whole: dict[str, Tensor],
) -> dict[str, float]:
    """The difference that the cut makes, the micro-batches of this rank, and how many it would need alone."""
    cut, _ = accumulated(trainer, rolled, config, signal)
    tokens_P2 = tokens_of_groups(rolled, trainer.learner.unwrapped.num_queries)
    return {
        "cut_error": largest_difference(cut, whole),
        "micro_batches": len(list(micro_batches(rolled, trainer.learner, config, step=0))),
        "alone": fewest_parts(tokens_P2, budget),
    }


if __name__ == "__main__":
    main()
