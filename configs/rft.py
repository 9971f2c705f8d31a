"""Reinforcement fine-tuning with GRPO; fields that TRL's GRPOConfig has keep its names."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from configs.base import Config
from configs.checkpoints import CheckpointConfig
from configs.cluster import RayConfig
from configs.data import DataConfig, FrameChoiceConfig
from configs.lora import LoraConfig
from configs.model import LossConfig
from configs.optim import RFTOptimConfig, check_vision_rate
from configs.rewards import TASK_TERMS, RewardConfig
from configs.run import RunConfig

DecoderUpdate = Literal["frozen", "supervised", "pathwise"]

Phase = Literal[
    "encode", "rollout", "signal", "vision", "prompt", "completions", "decoder", "scoring", "reference", "reward",
    "backward", "update", "push", "wait", "validate", "other",
]  # fmt: skip
PHASES: tuple[Phase, ...] = get_args(Phase)
"""What a GRPO step spends its time on; what each one holds is said in rft/phase_seconds.py."""

SHAPING_TERMS = ("format", "consistency", "think")
"""Reward terms that say how an answer is written, and not whether it is right."""


class RolloutConfig(Config):
    """Sampling with vLLM: one request for each prompt, with n = num_generations."""

    prompts_per_step: Annotated[int, Field(ge=1)] = 8
    """P, on each trainer rank."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """G, completions for each prompt."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    max_completion_length: Annotated[int, Field(ge=4)] = 32
    """Tokens; a span is about 16."""
    max_model_len: Annotated[int, Field(ge=64)] = 8192
    """Longest prompt and completion together, in tokens. Also vLLM's max_num_batched_tokens: a prefill that is not
    chunked is what makes a seeded request repeat bit for bit on CPU."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 4.0
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of the GPU that vLLM may take; not used on CPU."""
    max_resamples: Annotated[int, Field(ge=0)] = 0
    """How often a step draws further prompts in place of those whose group has no signal (dynamic sampling, DAPO,
    2503.14476, section 3.2), each time as many as are missing; then groups without signal fill the step up. The draws are a
    function of seed and step. Above 0, a forward without gradient finds the signal before training."""
    timeout_sec: Annotated[float, Field(gt=0)] = 600.0
    """Longest wait for a generation or a weight push."""
    max_logprob_mismatch: Annotated[float, Field(gt=0)] | None = None
    """The step fails when mean |log-prob of vLLM - log-prob of the trainer| is above it. None: 1e-4 in float32, which
    weights that are one update old exceed at a learning rate of 1e-6 (2.7e-4 on a tiny model, where 5e-7 is the most that the
    right ones were off by), and 0.02 in bfloat16, whose rounding differs from kernel to kernel."""


class ObjectiveConfig(Config):
    """The policy objective and what happens to the decoder."""

    loss_type: Literal["sum", "grpo", "bnpo", "dr_grpo", "dapo", "cispo"] = "sum"
    """How token terms are normalised: `sum` over tokens and mean over completions (the estimator that pairs with
    `pathwise`), mean per completion (grpo), mean over a rank's tokens (bnpo) or over those of all ranks (dapo), or divided
    by the longest allowed length (dr_grpo). `cispo` (2506.13585) is dapo's mean of log-probs, weighted with ratios of at
    most epsilon_high, instead of the clipped surrogate."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """A ratio for each token, or the geometric mean of a completion's (GSPO, 2507.18071; with loss_type=grpo)."""
    importance_sampling: Literal["ratio", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = (
        "ratio"
    )
    """How the samples of vLLM, whose log-probs differ a little from the trainer's, are corrected for. `ratio`: the
    surrogate's own ratio is trainer / vLLM, and clipped like any. Otherwise a detached weight trainer / vLLM, of
    tokens or whole completions, cut off at importance_sampling_max or set to 0 beyond it (names as in TRL). Boxes have the
    weight of their completion, which a `token_*` mode limits too."""
    importance_sampling_max: Annotated[float, Field(gt=0)] = 3.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence (k3 estimator) from the policy that the run starts from; with LoRA that is the model
    without its adapters, otherwise a second copy of it is kept."""
    use_bias_correction_kl: bool = True
    """Multiply the KL term by the ratio, whose gradient makes that of the estimate unbiased (DeepSeek-V3.2, 2512.02556)."""
    mask_truncated_completions: bool = False
    """Leave completions that were cut off out of the loss (DAPO section 3.4); they still count in the group's mean."""
    zero_variance: Literal["keep", "mask", "drop"] = "keep"
    """What becomes of a group without signal, in which no outcome term pays differently: `keep` it, and it teaches what its
    other terms say (format); `mask` it out of the policy loss, whose divisors stay; `drop` it from the divisors too, which
    takes a forward without gradient before training. The decoder's term keeps every group."""
    outcome_terms: list[str] | None = None
    """The reward terms that signal is looked for in, of those with a weight; None: all of them but SHAPING_TERMS. What they
    pay is compared: after gates and clips, with the weights of the group's task."""
    scale_rewards: Literal["running", "group", "batch", "none"] = "running"
    """What advantages are divided by: a running standard deviation of the reward, one for each task (floor `std_floor`), the
    group's, that of the step on all ranks (batch), or nothing."""
    std_floor: Annotated[float, Field(gt=0)] = 0.05
    std_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the running standard deviation, step by step."""
    std_initial: Annotated[float, Field(gt=0)] = 0.5
    """What it is before the first step; our choice."""
    epsilon: Annotated[float, Field(gt=0)] = 0.2
    """The ratio is clipped to [1 - epsilon, 1 + epsilon_high]. A step's completions are trained on once, with the weights that
    they were sampled with, so the ratio is that of trainer and vLLM on the same weights, and the clip is about their mismatch
    alone. With an importance_sampling other than `ratio` the ratio is 1 and the clip does nothing."""
    epsilon_high: Annotated[float, Field(gt=0)] = 0.28
    """Clip-higher, DAPO (2503.14476) section 3.1. For cispo the largest weight itself, 5 for example, and not 1 + it."""
    decoder_update: DecoderUpdate = "pathwise"
    """`pathwise` adds the gradient of the reward through the boxes, `supervised` the SFT losses on boxes, and
    `frozen` neither: then only the text is trained."""

    @model_validator(mode="after")
    def _sequence_ratio(self) -> "ObjectiveConfig":
        if self.importance_sampling_level == "sequence" and self.loss_type != "grpo":
            raise ValueError(
                "importance_sampling_level=sequence needs loss_type=grpo: other normalisations would weigh the one ratio "
                f"of a completion by its length; got loss_type={self.loss_type}"
            )
        return self

    @model_validator(mode="after")
    def _largest_cispo_weight(self) -> "ObjectiveConfig":
        if self.loss_type == "cispo" and self.epsilon_high <= 1:
            raise ValueError(
                "loss_type=cispo needs epsilon_high > 1, for example 5: it is the largest weight itself, and the weight of a "
                f"sample that trainer and vLLM agree on is 1; got epsilon_high={self.epsilon_high}"
            )
        return self

    @model_validator(mode="after")
    def _one_scale_for_both_terms(self) -> "ObjectiveConfig":
        if self.decoder_update == "pathwise" and (self.loss_type, self.scale_rewards) != ("sum", "running"):
            raise ValueError(
                "decoder_update=pathwise needs loss_type=sum and scale_rewards=running, others go with supervised or frozen: both "
                f"terms of the gradient must share one scale; got loss_type={self.loss_type}, scale_rewards={self.scale_rewards}"
            )
        if self.decoder_update == "pathwise" and self.zero_variance == "drop":
            raise ValueError(
                "zero_variance=drop divides the policy's term by other counts than the boxes', and decoder_update=pathwise "
                "needs one scale for both: use zero_variance=mask"
            )
        return self


class ValidationConfig(Config):
    """Greedy answers to samples that are not trained on, scored by the reward; the best checkpoint is kept."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    split: str = "validation"
    max_samples: Annotated[int, Field(ge=1)] = 64


class RFTConfig(Config):
    """One GRPO run: `python -m rft.train --config configs/rft/bridge_2b.yaml checkpoint=runs/sft/checkpoint`."""

    run: RunConfig
    checkpoint: str
    """Checkpoint folder written by SFT (or an earlier RFT)."""
    data: DataConfig
    rewards: RewardConfig = RewardConfig()
    rollout: RolloutConfig = RolloutConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: RFTOptimConfig = RFTOptimConfig()
    loss: LossConfig = LossConfig()
    """Weights of the box losses for decoder_update=supervised; its text weight is not used."""
    frames: FrameChoiceConfig = FrameChoiceConfig()
    """Frames of the supervised box losses."""
    ray: RayConfig = RayConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    max_steps: Annotated[int, Field(ge=1)] = 200
    prompts_per_micro_batch: Annotated[int, Field(ge=1)] = 8
    """Whole groups that go through one forward and backward, as they were drawn."""
    max_tokens_per_micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Instead, neighbours in length, as many as have at most so many tokens with their padding (rft/group_cuts.py says which
    are counted). A group that has more is alone. Losses stay the same; so do the frames of supervised box losses, which are
    still drawn `prompts_per_micro_batch` groups at a time, and whose mean is then one over the step of a rank."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    freeze_vision: bool = True
    lora: LoraConfig | None = None
    """Adapters on the LLM instead of training it whole; vLLM gets, and checkpoints hold, the merged weights."""
    gradient_checkpointing: bool = False
    """Of the LLM's layers. A group's prompt goes through them once where its answers are short and attention is sdpa, and else
    with every completion (model/prompt_pass.py)."""
    split_forward_time: bool = True
    """Log the seconds of the forward by its parts (vision, prompt, completions, decoder). On a GPU the trainer then waits
    for the device where a part ends; without it the whole forward is `scoring`."""

    @property
    def logprob_mismatch_limit(self) -> float:
        """rollout.max_logprob_mismatch, or what None stands for in this dtype."""
        if self.rollout.max_logprob_mismatch is not None:
            return self.rollout.max_logprob_mismatch
        return 1e-4 if self.dtype == "float32" else 0.02

    @property
    def signal_terms(self) -> list[str]:
        """The terms that tell whether a group has signal (objective.zero_variance, rollout.max_resamples)."""
        if self.objective.outcome_terms is not None:
            return self.objective.outcome_terms
        return [name for name in self._weighted_terms if name not in SHAPING_TERMS]

    @property
    def _weighted_terms(self) -> list[str]:
        """Of any task."""
        names = [name for terms in self.rewards.terms_by_task.values() for name in terms]
        return list(dict.fromkeys([*names, *(name for name, weight in self.rewards.own.items() if weight > 0)]))

    @model_validator(mode="after")
    def _known_outcome_terms(self) -> "RFTConfig":
        weighted = self._weighted_terms
        is_used = self.objective.zero_variance != "keep" or self.rollout.max_resamples > 0
        if not set(self.signal_terms) <= set(weighted) or (is_used and not self.signal_terms):
            raise ValueError(
                f"objective.outcome_terms: expected terms with a weight ({weighted}), got {self.signal_terms}"
            )
        return self

    @model_validator(mode="after")
    def _rewards_of_every_task(self) -> "RFTConfig":
        tasks = sorted(task for task, weight in self.data.tasks.items() if weight > 0)
        if not tasks:
            raise ValueError(f"data.tasks: expected at least one task with a weight, got {self.data.tasks}")
        if missing := [task for task in tasks if task not in ("stvg", *self.rewards.tasks)]:
            task, outcome = missing[0], TASK_TERMS[missing[0]][1]
            raise ValueError(
                f"rewards.tasks: expected weights for {task}, which data.tasks draws, such as {task}: {{format: 0.1, {outcome}: 1}}"
            )
        if self.data.batches != "mixed":
            raise ValueError(f"data.batches: GRPO draws its tasks mixed, expected mixed; got {self.data.batches}")
        return self

    @model_validator(mode="after")
    def _trained_vision(self) -> "RFTConfig":
        check_vision_rate(self.optim, freeze_vision=self.freeze_vision)
        return self

    @model_validator(mode="after")
    def _adapters_alone(self) -> "RFTConfig":
        if self.lora is not None and (not self.freeze_vision or self.lora.lora_dropout > 0):
            raise ValueError(
                "lora: needs freeze_vision=true, since adapters are all that a step's folder keeps of the MLLM, and "
                "lora_dropout=0, since vLLM samples from the merged weights"
            )
        return self

    @model_validator(mode="after")
    def _whole_intervals(self) -> "RFTConfig":
        every = self.checkpoints.every_steps
        if self.validation.every_steps is not None and (every is None or self.validation.every_steps % every):
            raise ValueError(
                f"validation.every_steps: expected a multiple of checkpoints.every_steps={every}, so that the best "
                f"can be kept; got {self.validation.every_steps}"
            )
        return self

    @model_validator(mode="after")
    def _whole_batch_at_once(self) -> "RFTConfig":
        is_cut = (
            self.prompts_per_micro_batch < self.rollout.prompts_per_step or self.max_tokens_per_micro_batch is not None
        )
        if self.objective.scale_rewards == "batch" and is_cut:
            raise ValueError(
                "objective.scale_rewards=batch needs prompts_per_micro_batch >= rollout.prompts_per_step, and no "
                "max_tokens_per_micro_batch"
            )
        return self
