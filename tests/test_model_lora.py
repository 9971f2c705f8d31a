"""LoRA: fresh adapters change nothing, the merged checkpoint answers like the adapted model, and a step can be resumed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from runs import finished_steps, kill, rows_of, run, start, wait_for, write_config
from safetensors.torch import load_file
from tiny import Tiny

from configs.lora import LoraConfig
from configs.model import ModelConfig
from configs.optim import OptimConfig
from configs.rft import RFTConfig
from data.collate import Batch, collate_inputs
from data.encoding import text_ids
from model.build import load_checkpoint, make_optimizer, save_checkpoint
from model.grounding_model import GroundingModel
from model.lora import ADAPTER_FILE, add_lora, merge
from rft.reference import ReferencePolicy
from rft.setup import make_accelerator

LORA = LoraConfig(r=4, lora_alpha=8.0)
LINEAR_PER_LAYER, NUM_LAYERS = 7, 4


def one_batch(tiny: Tiny) -> Batch:
    prompts = [tiny.encoder(sample) for sample in tiny.of_task("stvg")[:2]]
    answers = [text_ids(tiny.processor, "<time> 0.5 - 2.0 </time>")] * 2
    pad_id = tiny.processor.tokenizer.pad_token_id
    return collate_inputs(prompts, answers, [[0, 2]] * 2, num_queries=4, pad_id=pad_id)


def numbers(model: GroundingModel, batch: Batch) -> list[torch.Tensor]:
    with torch.inference_mode():
        output = model.eval()(**batch)
    return [output.logps_BL, output.grounding.boxes_cxcywh_NBF4]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor], *, atol: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=0)


def trained(model: GroundingModel, batch: Batch) -> GroundingModel:
    """Three steps that change the answers."""
    optimizer = make_optimizer(model, OptimConfig(learning_rate=1e-2, grounder_learning_rate=1e-3))
    for _ in range(3):
        output = model.train()(**batch)
        (-output.logps_BL.sum() + output.grounding.boxes_cxcywh_NBF4.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_fresh_adapters_change_nothing(model: GroundingModel, tiny: Tiny) -> None:
    batch = one_batch(tiny)
    before = numbers(model, batch)
    add_lora(model, LORA)
    assert_close(numbers(model, batch), before, atol=0)


def test_only_adapters_and_grounder_are_trained(model: GroundingModel) -> None:
    add_lora(model, LORA)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_the_mllm = [name for name in names if name.startswith("mllm.")]
    assert len(of_the_mllm) == 2 * LINEAR_PER_LAYER * NUM_LAYERS
    assert all(".language_model.layers." in name and ".lora_" in name for name in of_the_mllm)
    assert {name for name in names if name.startswith("grounder.")} == {
        f"grounder.{name}" for name, _ in model.grounder.named_parameters()
    }


def test_merge_by_hand() -> None:
    """W = [[1, 2], [3, 4]], B = [[1], [0]], A = [[2, 3]], alpha / r = 2: the first row gains 2 * (2, 3)."""

    state = {
        "mllm.q_proj.base_layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "mllm.q_proj.base_layer.bias": torch.tensor([5.0, 6.0]),
        "mllm.q_proj.lora_A.default.weight": torch.tensor([[2.0, 3.0]]),
        "mllm.q_proj.lora_B.default.weight": torch.tensor([[1.0], [0.0]]),
        "grounder.x": torch.tensor([7.0]),
    }
    merged = merge(state, scaling=2.0)
    expected = {"mllm.q_proj.weight": [[5.0, 8.0], [3.0, 4.0]], "mllm.q_proj.bias": [5.0, 6.0], "grounder.x": [7.0]}
    assert {name: tensor.tolist() for name, tensor in merged.items()} == expected


def test_the_merged_checkpoint_answers_like_the_adapted_model(
    model: GroundingModel, tiny: Tiny, tmp_path: Path
) -> None:
    """Released names, nothing of peft, and the same numbers; only the adapted weights have changed."""
    batch = one_batch(tiny)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    untrained = numbers(model, batch)
    add_lora(model, LORA)
    trained(model, batch)
    assert (numbers(model, batch)[0] - untrained[0]).abs().max() > 1e-2
    save_checkpoint(model, tiny.processor, tmp_path / "step")
    loaded, _ = load_checkpoint(tmp_path / "step", dtype="float32")
    assert_close(numbers(loaded, batch), numbers(model, batch), atol=1e-5)
    after = loaded.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if name.startswith("mllm.") and not torch.equal(before[name], after[name])}
    assert len(changed) == LINEAR_PER_LAYER * NUM_LAYERS
    assert all(name.endswith("_proj.weight") for name in changed)


def test_a_step_is_taken_over_bit_by_bit(model: GroundingModel, tiny: Tiny, tmp_path: Path) -> None:
    """The weights that the run began with, with the adapters and the grounder of its last step."""
    batch = one_batch(tiny)
    add_lora(model, LORA)
    trained(model, batch)
    save_checkpoint(model, tiny.processor, tmp_path / "step")
    resumed, _ = load_checkpoint(tiny.folder, dtype="float32")
    add_lora(resumed, LORA, resumed=tmp_path / "step")
    ours, theirs = model.state_dict(), resumed.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_adapters_of_another_config_are_refused(model: GroundingModel, tiny: Tiny, tmp_path: Path) -> None:
    add_lora(model, LORA)
    save_checkpoint(model, tiny.processor, tmp_path / "step")
    other, _ = load_checkpoint(tiny.folder, dtype="float32")
    with pytest.raises(ValueError, match=rf"{ADAPTER_FILE}: its adapters are not those of the config"):
        add_lora(other, LoraConfig(r=8), resumed=tmp_path / "step")


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapters off", "a copy"])
def test_reference_policy_is_where_the_run_started(lora: LoraConfig | None, tiny: Tiny, rft_config: RFTConfig) -> None:
    """Its log-probs are the checkpoint's after the policy has moved away from them, and the policy is left as it was."""
    policy, _ = load_checkpoint(tiny.folder, dtype="float32")
    batch = one_batch(tiny)
    start = numbers(policy, batch)[0]
    if lora is not None:
        add_lora(policy, lora)
    trained(policy, batch)
    config = rft_config.model_copy(update={"lora": lora})
    moved = numbers(policy, batch)[0]
    reference = ReferencePolicy(config, policy, make_accelerator(config)).logps(batch)
    torch.testing.assert_close(reference, start, atol=1e-6, rtol=0)
    assert not reference.requires_grad and (moved - start).abs().max() > 1e-2
    assert torch.equal(numbers(policy, batch)[0], moved)


@pytest.mark.parametrize(
    ("schema", "config", "expected"),
    [
        (ModelConfig, {"lora": {}, "freeze_vision": False}, "lora: needs freeze_vision=true"),
        (ModelConfig, {"lora": {"r": 0}}, "greater than or equal to 1"),
        (ModelConfig, {"lora": {"target_modules": []}}, "at least 1"),
        (ModelConfig, {"lora": {"target_modules": ["lm_head"]}}, "'q_proj'"),
    ],
)
def test_configs_that_cannot_work(schema: Any, config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        schema.model_validate(config)


def test_grpo_refuses_dropout(rft_config: RFTConfig) -> None:
    with pytest.raises(ValidationError, match="lora_dropout=0"):
        RFTConfig.model_validate(rft_config.model_dump() | {"freeze_vision": True, "lora": {"lora_dropout": 0.1}})


@pytest.mark.slow
def test_sft_and_grpo_with_adapters_go_on_after_a_kill(sft_run: Path, rft_run: Path, tmp_path: Path) -> None:
    """Both entry points: a run that is killed and started again ends in the tensors of one that was not."""
    for module, folder in (("sft.train", sft_run), ("rft.train", rft_run)):
        ends = []
        for name in ("whole", "killed"):
            config = yaml.safe_load((folder / "config.yaml").read_text())
            (config if module == "rft.train" else config["model"]).update(
                {"lora": LORA.model_dump(mode="json"), "freeze_vision": True}
            )
            out = tmp_path / f"{module}-{name}"
            config["run"]["out"] = str(out)
            path = write_config(tmp_path, f"{module}-{name}.yaml", config)
            if name == "killed":
                process = start(module, path, tmp_path / "log")
                every = config["checkpoints"]["every_steps"]
                wait_for(lambda out=out, every=every: finished_steps(out) > every, process)
                kill(process)
            run(module, "--config", str(path))
            ends.append(out)
        tensors = [load_file(out / "checkpoint" / "mllm" / "model.safetensors") for out in ends]
        assert [name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[1][name])] == []
        assert rows_of(ends[0]) == rows_of(ends[1])
        shutil.rmtree(ends[1])
