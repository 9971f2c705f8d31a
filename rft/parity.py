"""The gate at the start of GRPO for backbones whose positions transformers and vLLM compute by different rules.

Rollouts come from vLLM and gradients from the trainer; where the two mean different models, training goes on and learns from
ratios that have nothing to do with the policy. Qwen2.5-VL is such a backbone (model/qwen2_5_vl.py): with transformers' own
positions its log-probs are off by about 0.1. Qwen3-VL is compared in every step (rft/step_metrics.py), which costs nothing;
here the first prompts are answered once more, before anything is trained.
"""

import logging
from collections.abc import Sequence

import torch

from data.types import GroundingSample
from evaluation.vllm_engine import RolloutError
from rft.micro_batches import inputs_of, micro_batches
from rft.objective import policy_metrics
from rft.sampling import Sampler

logger = logging.getLogger("rft.parity")
GATED = ("qwen2_5_vl",)


def check_parity(sampler: Sampler, samples: Sequence[GroundingSample], *, version: int) -> dict[str, float]:
    """Compare the log-probs of one micro-batch of rollouts, with the engine's weights of `version`; -> their differences.

    Nothing is asked of a backbone that is not gated. Raises RolloutError, naming the backbone, the difference and the limit.
    """
    config, learner = sampler.config, sampler.learner
    backbone = learner.unwrapped.mllm.config.model_type
    if backbone not in GATED:
        return {}
    rolled = sampler.roll(version, samples[: config.prompts_per_micro_batch])
    _, batch = next(micro_batches(rolled, learner, config))
    device = learner.accelerator.device
    with torch.no_grad():
        output = learner.unwrapped(temperature=config.rollout.temperature, **inputs_of(batch, device))
    old_BL, mask_BL = batch.old_logps_BL.to(device), batch.mask_BL.to(device)
    found = policy_metrics(output.logps_BL, old_BL, output.entropies_BL, mask_BL)
    mean, largest, limit = found["mismatch/mean"], found["mismatch/max"], config.logprob_mismatch_limit
    said = f"{config.checkpoint}: backbone {backbone}: log-probs of trainer and vLLM differ by {mean:.1e} on average"
    if not mean <= limit:
        raise RolloutError(f"{said}, {largest:.1e} at most, limit {limit}: the two compute different models")
    logger.info("%s, %.1e at most", said, largest)
    return found
