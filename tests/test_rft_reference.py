"""The reference policy of a real trainer in bfloat16: before the first update the KL divergence from it is nothing."""

import pytest
import torch
from accelerate.state import AcceleratorState
from rft_without_engine import trainer_of, with_fields, written
from tiny import Tiny

from configs.lora import LoraConfig
from configs.rft import ObjectiveConfig, RFTConfig
from rft.micro_batches import inputs_of, micro_batches


@pytest.mark.parametrize("lora", [LoraConfig(r=4), None], ids=["adapters off", "a copy"])
def test_the_policy_starts_at_no_distance(
    lora: LoraConfig | None, tiny: Tiny, rft_config: RFTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded alike, its log-probs are the policy's to the bit; those in float32 are others."""
    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # a process has one precision, and other tests float32
    objective = ObjectiveConfig(decoder_update="frozen", loss_type="grpo", beta=0.01)
    config = with_fields(rft_config, objective=objective, lora=lora, freeze_vision=True, dtype="bfloat16")
    trainer = trainer_of(config)
    rolled = written(trainer, tiny.of_task("stvg")[:2], [0, 3])
    assert trainer.accumulate(rolled, None, 0).metrics(trainer.rewards.names)["policy/kl"] == 0.0
    _, batch = next(micro_batches(rolled, trainer.learner, config))
    inputs = inputs_of(batch, trainer.learner.accelerator.device)
    assert trainer.reference is not None
    reference_BL = trainer.reference.logps(inputs)
    with torch.no_grad():
        assert torch.equal(reference_BL, trainer.learner.model(**inputs).logps_BL)
        assert not torch.equal(reference_BL, tiny.model(**inputs).logps_BL)
