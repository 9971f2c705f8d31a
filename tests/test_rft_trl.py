"""Parity with TRL: the losses and gradients of a real GRPOTrainer on the same log-probs, advantages and masks.

TRL's own forward is replaced by given log-probs: what is compared is the objective, in float64.
"""

from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny import Tiny
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from configs.rft import ObjectiveConfig
from rft.advantages import batch_std, group_advantages, group_std
from rft.objective import StepCounts, policy_loss

NUM_COMPLETIONS, LENGTH, MAX_LENGTH = 8, 6, 16


@pytest.fixture(scope="module")
def trl_trainer(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> GRPOTrainer:
    """A real trainer on a language model of a few thousand parameters, which its forward is never asked for."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=1024, num_key_value_heads=1, head_dim=8, **sizes))
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=NUM_COMPLETIONS,
        num_generations=4,
        max_completion_length=MAX_LENGTH,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=tiny.processor.tokenizer,
    )


def draw() -> dict[str, Tensor]:
    """Policies that differ enough for ratios on both sides of every clip; rows of 1 to 6 tokens."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    new = -rand(NUM_COMPLETIONS, LENGTH).abs() - 0.1
    lengths_B1 = torch.tensor([6, 3, 1, 5, 2, 6, 4, 2])[:, None]
    return {
        "new": new,
        "old": new + 0.4 * rand(NUM_COMPLETIONS, LENGTH),
        "ref": new + 0.3 * rand(NUM_COMPLETIONS, LENGTH),
        "advantages": rand(NUM_COMPLETIONS),
        "mask": (torch.arange(LENGTH) < lengths_B1).long(),
    }


def trl_loss(trainer: GRPOTrainer, given: dict[str, Tensor], new: Tensor, objective: ObjectiveConfig) -> Tensor:
    """What TRL computes when its model's log-probs are `new`."""
    weighted = objective.importance_sampling != "ratio"
    trainer.loss_type = objective.loss_type
    trainer.importance_sampling_level = objective.importance_sampling_level
    trainer.epsilon_low, trainer.epsilon_high = objective.epsilon, objective.epsilon_high
    trainer.beta, trainer.current_gradient_accumulation_steps = objective.beta, 1
    trainer.args.use_bias_correction_kl = objective.use_bias_correction_kl
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = weighted
    forward = lambda *args, **kwargs: (new, torch.zeros_like(new), None)  # noqa: E731
    trainer._get_per_token_logps_and_entropies = forward  # type: ignore[method-assign]
    ids = torch.zeros(NUM_COMPLETIONS, LENGTH, dtype=torch.long)
    inputs: dict[str, Any] = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": given["mask"],
        "advantages": given["advantages"],
        "ref_per_token_logps": given["ref"],
        "num_items_in_batch": given["mask"].sum(),
    }
    if weighted:
        inputs["importance_sampling_ratio"] = trl_sampling_ratio(given, new.detach(), objective)
    else:
        inputs["old_per_token_logps"] = given["old"]
    return trainer._compute_loss(trainer.model, inputs)


def trl_sampling_ratio(given: dict[str, Tensor], trainer_logps: Tensor, objective: ObjectiveConfig) -> Tensor:
    """As TRL 1.16 computes it while it generates (grpo_trainer.py, `vllm_importance_sampling_ratio`), written again
    here: the lines stand in the middle of a method that asks vLLM."""
    level, _, what = objective.importance_sampling.partition("_")
    difference = (trainer_logps - given["old"]) * given["mask"]
    ratio = (difference.sum(-1, keepdim=True) if level == "sequence" else difference).exp()
    largest = objective.importance_sampling_max
    return ratio.clamp(max=largest) if what == "truncate" else ratio.masked_fill(ratio > largest, 0.0)


def our_loss(given: dict[str, Tensor], new: Tensor, objective: ObjectiveConfig) -> Tensor:
    num_tokens = int(given["mask"].sum())
    counts = StepCounts(NUM_COMPLETIONS, num_tokens, float(num_tokens), MAX_LENGTH)
    ref = given["ref"] if objective.beta > 0 else None
    return policy_loss(new, given["old"], given["advantages"], given["mask"].bool(), counts, objective, ref)


CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo")
CASES = [
    *({"loss_type": name} for name in CLIPPED),
    *({"loss_type": name, "beta": 0.1} for name in CLIPPED),
    {"loss_type": "cispo", "epsilon_high": 1.3},
    {"loss_type": "cispo", "epsilon_high": 1.3, "beta": 0.1},
    {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.1},
    *(
        {"loss_type": name, "importance_sampling": f"{level}_{what}", "importance_sampling_max": 1.2}
        for name in ("grpo", "dapo")
        for level in ("token", "sequence")
        for what in ("truncate", "mask")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_loss_and_gradient_are_trls(case: dict[str, Any], trl_trainer: GRPOTrainer) -> None:
    objective = ObjectiveConfig(decoder_update="frozen", **case)
    given = draw()
    results = []
    for loss_of in (
        lambda new: our_loss(given, new, objective),
        lambda new: trl_loss(trl_trainer, given, new, objective),
    ):
        new = given["new"].clone().requires_grad_()
        loss = loss_of(new)
        loss.backward()
        assert new.grad is not None
        results.append((loss.detach(), new.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert theirs.abs() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_are_trls(scale_rewards: str) -> None:
    """(r - mean) / (sample std + 1e-4), as TRL 1.16 writes it; the standard deviation of a group or of all."""
    rewards_PG = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    std = {"group": rewards_PG.std(dim=1, keepdim=True), "batch": rewards_PG.std(), "none": torch.tensor(1.0 - 1e-4)}
    theirs = (rewards_PG - rewards_PG.mean(dim=1, keepdim=True)) / (std[scale_rewards] + 1e-4)
    scale = {"group": group_std(rewards_PG), "batch": batch_std(rewards_PG), "none": torch.ones(1, 1)}[scale_rewards]
    torch.testing.assert_close(group_advantages(rewards_PG, scale=scale), theirs, atol=1e-6, rtol=0)
