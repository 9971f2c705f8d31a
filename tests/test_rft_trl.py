"""Parity with TRL: the loss and gradient of a real GRPOTrainer on the same completions, rewards and log-probs.

Both sides are given what vLLM sampled and what two reward functions say, and do the rest by themselves: TRL in
`_generate_and_score_completions` and `_compute_loss`, ours in `step_counts` and `rollout_loss`. TRL's forward is replaced by given
log-probs, in float64; its rewards and advantages are float32, so both sides agree to within 1e-6.
"""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from datasets import Dataset
from given_rollouts import config_of, given_loss
from tiny import Tiny
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from configs.rft import ObjectiveConfig, RolloutConfig
from evaluation.vllm_engine import Rollout
from rewards.tasks import weigh_by_task
from rft.advantages import advantage_scale, group_advantages
from rft.step_metrics import step_counts

G, NUM_COMPLETIONS, LENGTH = 4, 8, 6
WEIGHTS = [0.25, 1.5]
ANY_TOKEN = 7


@dataclass(frozen=True)
class Given:
    """Log-probs of the policy, as sampled, and of the reference; rewards of two terms. Rows of 1 to 6 tokens, two of them cut off."""

    new_BL: Tensor
    old_BL: Tensor
    ref_BL: Tensor
    mask_BL: Tensor
    rewards_BK: Tensor
    truncated: list[bool]

    @property
    def total_B(self) -> Tensor:
        """The weighted sum of the terms, as the composer has it."""
        return weigh_by_task(self.rewards_BK, ["stvg"] * NUM_COMPLETIONS, {"stvg": torch.tensor(WEIGHTS)})

    def rows(self, values_BL: Tensor) -> list[list[float]]:
        """Without padding."""
        return [row[kept].tolist() for row, kept in zip(values_BL, self.mask_BL, strict=True)]

    def completions(self, eos_id: int) -> list[list[int]]:
        """Ended by eos, unless cut off."""
        lengths = self.mask_BL.sum(dim=1).tolist()
        ends = [ANY_TOKEN if is_truncated else eos_id for is_truncated in self.truncated]
        return [[ANY_TOKEN] * (length - 1) + [end] for length, end in zip(lengths, ends, strict=True)]


@pytest.fixture(scope="module")
def given() -> Given:
    """Policies that differ enough for ratios on both sides of every clip."""
    generator = torch.Generator().manual_seed(3)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    new_BL = -rand(NUM_COMPLETIONS, LENGTH).abs() - 0.1
    lengths_B1 = torch.tensor([6, 3, 1, 5, 2, 6, 4, 2])[:, None]
    mask_BL = torch.arange(LENGTH) < lengths_B1
    return Given(
        new_BL=new_BL,
        # TRL keeps what was sampled in float32.
        old_BL=(new_BL + 0.4 * rand(NUM_COMPLETIONS, LENGTH)).float().double(),
        ref_BL=new_BL + 0.3 * rand(NUM_COMPLETIONS, LENGTH),
        mask_BL=mask_BL,
        rewards_BK=torch.rand(NUM_COMPLETIONS, 2, generator=generator),
        truncated=[True, False, False, False, False, True, False, False],
    )


@pytest.fixture(scope="module")
def trl_trainer(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> GRPOTrainer:
    """A real trainer on a language model of a few thousand parameters, which its forward is never asked for."""
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=1024, num_key_value_heads=1, head_dim=8, **sizes))
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        per_device_train_batch_size=NUM_COMPLETIONS,
        num_generations=G,
        max_completion_length=RolloutConfig().max_completion_length,
        reward_weights=WEIGHTS,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer: Any = GRPOTrainer(
        model=model,
        reward_funcs=[first_reward, second_reward],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=tiny.processor.tokenizer,
    )
    trainer.model.train()
    return trainer


def first_reward(completions: list[str], first: list[float], **columns: object) -> list[float | None]:
    return [*first]


def second_reward(completions: list[str], second: list[float], **columns: object) -> list[float | None]:
    return [*second]


def scored_by_trl(trainer: Any, given: Given, new_BL: Tensor, objective: ObjectiveConfig) -> dict[str, Any]:
    """What TRL makes of the completions: masks, advantages, sampling weights."""
    give_logps(trainer, new_BL.detach())
    trainer.scale_rewards = objective.scale_rewards
    trainer.mask_truncated_completions = objective.mask_truncated_completions
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = objective.importance_sampling != "ratio"
    trainer.vllm_importance_sampling_mode = objective.importance_sampling
    trainer.vllm_importance_sampling_clip_max = objective.importance_sampling_max
    trainer.vllm_importance_sampling_clip_min = None
    trainer.beta = 0.0  # the reference's log-probs are given
    trainer._last_loaded_step = trainer.state.global_step  # nothing is pushed
    eos_id = trainer.processing_class.eos_token_id
    sampled = {"completion_ids": given.completions(eos_id), "logprobs": given.rows(given.old_BL)}
    trainer.rollout_func = lambda prompts, trainer: {"prompt_ids": [[ANY_TOKEN]] * NUM_COMPLETIONS} | sampled
    rewards = zip(*given.rewards_BK.T.tolist(), strict=True)
    rows = [{"prompt": "ab"[i // G], "first": first, "second": second} for i, (first, second) in enumerate(rewards)]
    return trainer._generate_and_score_completions(rows)


def give_logps(trainer: Any, logps_BL: Tensor) -> None:
    """In place of its forward."""
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logps_BL, torch.zeros_like(logps_BL), None)


def trl_loss(trainer: Any, given: Given, new_BL: Tensor, objective: ObjectiveConfig) -> Tensor:
    inputs = scored_by_trl(trainer, given, new_BL, objective)
    if objective.importance_sampling == "ratio":
        # Ours takes the surrogate's own ratio against what was sampled.
        inputs["old_per_token_logps"] = given.old_BL
    inputs["ref_per_token_logps"] = given.ref_BL
    trainer.loss_type = objective.loss_type
    trainer.importance_sampling_level = objective.importance_sampling_level
    trainer.epsilon_low, trainer.epsilon_high = objective.epsilon, objective.epsilon_high
    trainer.beta, trainer.current_gradient_accumulation_steps = objective.beta, 1
    trainer.args.use_bias_correction_kl = objective.use_bias_correction_kl
    give_logps(trainer, new_BL)
    return trainer._compute_loss(trainer.model, inputs)


def our_loss(given: Given, new_BL: Tensor, objective: ObjectiveConfig) -> Tensor:
    ends = zip(given.completions(eos_id=0), given.rows(given.old_BL), given.truncated, strict=True)
    rollouts = [Rollout(ids, logps, is_truncated, 0) for ids, logps, is_truncated in ends]
    counts = step_counts([rollouts[:G], rollouts[G:]], None, config_of(objective), lambda value: value)
    loss, _ = given_loss(
        new_BL, given.old_BL, given.mask_BL, given.total_B, counts, objective,
        num_generations=G, scale_of_task=never_asked, truncated=given.truncated,
        ref_logps_BL=given.ref_BL if objective.beta > 0 else None,
    )  # fmt: skip
    return loss


def never_asked(task: str) -> float:
    pytest.fail("TRL has no running scale")


CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo")
TYPES: list[dict[str, Any]] = [*({"loss_type": name} for name in CLIPPED), {"loss_type": "cispo", "epsilon_high": 1.3}]
SEQUENCE: dict[str, Any] = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
WEIGHTED: list[dict[str, Any]] = [
    {"importance_sampling": f"{level}_{what}", "importance_sampling_max": 1.2}
    for level in ("token", "sequence")
    for what in ("truncate", "mask")
]
CASES = [
    *(case | {"scale_rewards": scale} for case in [*TYPES, SEQUENCE] for scale in ("group", "batch", "none")),
    *(case | {"beta": 0.1} for case in [*TYPES, SEQUENCE]),
    {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
    *(case | weights for case in [*TYPES, SEQUENCE] for weights in WEIGHTED),
    *(case | {"mask_truncated_completions": True} for case in [*TYPES, SEQUENCE]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_loss_and_gradient_are_trls(case: dict[str, Any], given: Given, trl_trainer: GRPOTrainer) -> None:
    scaled: dict[str, Any] = {"scale_rewards": "group"} | case
    objective = ObjectiveConfig(decoder_update="frozen", **scaled)
    results = []
    for loss_of in (
        lambda new_BL: our_loss(given, new_BL, objective),
        lambda new_BL: trl_loss(trl_trainer, given, new_BL, objective),
    ):
        new_BL = given.new_BL.clone().requires_grad_()
        loss = loss_of(new_BL)
        (gradient_BL,) = torch.autograd.grad(loss, new_BL)
        results.append((loss.detach(), gradient_BL))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert theirs.abs() > 1e-3
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_advantages_are_trls(scale_rewards: str, given: Given, trl_trainer: GRPOTrainer) -> None:
    """Of the weighted sum of two rewards, which TRL calls sum_then_normalize."""
    objective = ObjectiveConfig(decoder_update="frozen", scale_rewards=scale_rewards)  # type: ignore[arg-type]
    theirs_B = scored_by_trl(trl_trainer, given, given.new_BL, objective)["advantages"]
    rewards_PG = given.total_B.view(-1, G)
    scale = advantage_scale(rewards_PG, ["stvg"] * 2, scale_rewards, never_asked)
    torch.testing.assert_close(group_advantages(rewards_PG, scale=scale).flatten(), theirs_B, atol=1e-6, rtol=0)
