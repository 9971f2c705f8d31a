"""Low-rank adapters (LoRA, 2106.09685) on the LLM's linear layers; names as in peft.LoraConfig."""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Config

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LoraConfig(Config):
    """What is adapted, and how much. The LLM's own weights, the vision tower and the embeddings stay as they are."""

    r: Annotated[int, Field(ge=1)] = 32
    """Rank; published recipes for grounding use 32 to 128."""
    lora_alpha: Annotated[float, Field(gt=0)] = 64.0
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the adapter's input. GRPO needs 0: its log-probs must be those of the merged weights that vLLM samples from."""
    target_modules: Annotated[tuple[TargetModule, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
