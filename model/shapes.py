"""Models without weights: the released shapes, and a grounding model on the meta device.

configs/backbones/ holds the literal config.json of Qwen/Qwen3-VL-{2B,4B,8B}-Instruct as published on huggingface.co
(4.57.0.dev0), taken from verbatim copies in public repositories. They agree with the 2B and 8B of torchtitan
(github.com/pytorch/torchtitan, torchtitan/experiments/qwen3_vl/__init__.py), and the parameters they give are those that
the Hub reports of the released weights: 2,127,532,032, 4,437,815,808 and 8,767,123,696 (8B at revision 0c351dd0).
"""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from configs.model import ModelConfig
from model.backbone import freeze_vision_tower
from model.grounding_model import GroundingConfig, GroundingModel
from model.lora import add_lora

SHIPPED = Path(__file__).resolve().parent.parent / "configs" / "backbones"
OWNER = "Qwen/"


class BackboneConfigError(ValueError):
    """The config of a backbone cannot be had; the message names the backbone and what is expected."""


def shipped_config(name: str) -> Qwen3VLConfig:
    """The config of a released model by its name. Raises BackboneConfigError, naming those that there are."""
    path = SHIPPED / f"{name.removeprefix(OWNER)}.json"
    if not (name.startswith(OWNER) and path.is_file()):
        known = ", ".join(OWNER + file.stem for file in sorted(SHIPPED.glob("*.json")))
        raise BackboneConfigError(f"{name}: no shipped config; expected one of {known}")
    return Qwen3VLConfig(**json.loads(path.read_text()))


def backbone_config(name: str) -> tuple[Qwen3VLConfig, str]:
    """The config of a folder or a Hugging Face name, and where it came from.

    Where the hub cannot be reached a released model's config is the shipped one. Raises BackboneConfigError.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        if not name.startswith(OWNER) or Path(name).exists():
            reason = str(error).strip().splitlines()[0]
            raise BackboneConfigError(
                f"{name}: expected a folder or a name with a Qwen3-VL config: {reason}"
            ) from error
        return shipped_config(name), "configs/backbones (the hub was not reached)"
    if not isinstance(config, Qwen3VLConfig):
        raise BackboneConfigError(f"{name}: expected a qwen3_vl config, got {config.model_type!r}")
    return config, name


def empty_model(config: ModelConfig, backbone: Qwen3VLConfig) -> GroundingModel:
    """The grounding model of a config as it is trained, on the meta device: names, shapes, what is frozen; float32."""
    with torch.device("meta"):
        # Qwen3VLForConditionalGeneration(backbone) would take the dtype that the released weights have.
        mllm = Qwen3VLForConditionalGeneration._from_config(
            backbone, dtype=torch.float32, attn_implementation="eager" if config.attention == "eager" else "sdpa"
        )
        grounding_config = GroundingConfig(grounder=config.grounder, grounder_args=config.args_of_grounder())
        model = GroundingModel(grounding_config, mllm)
        if config.freeze_vision:
            freeze_vision_tower(mllm)
        if config.lora is not None:
            add_lora(model, config.lora)
    return model
