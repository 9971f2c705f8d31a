"""What is trained: the backbone and a grounder (`bridge`: STSB, ETA, QGSL; drawn in model/bridge_grounder.py)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.base import Config
from configs.lora import LoraConfig


class GrounderConfig(Config):
    """Base of a grounder's own section of ModelConfig, which is named after it."""


class BridgeConfig(GrounderConfig):
    """The `bridge` grounder. The paper's method section is not public to us; widths and counts are our choice."""

    num_queries: Annotated[int, Field(ge=1)] = 8
    """K, the bridging queries appended after the answer (STSB)."""
    num_taps: Annotated[int, Field(ge=1)] = 4
    """M, the LLM layers whose query states are mixed; spread evenly, the last layer included."""
    width: Annotated[int, Field(ge=16)] = 256
    """Decoder width; 256 as in DETR and the STVG decoders descended from it."""
    num_layers: Annotated[int, Field(ge=1)] = 6
    num_heads: Annotated[int, Field(ge=1)] = 8
    ffn_width: Annotated[int, Field(ge=16)] = 2048
    features: Literal["merged", "patches"] = "patches"
    """Vision features that the decoder reads: after the 2x2 merger, or the denser patches before it."""
    interactive: bool = True
    """Two-way attention between a frame's query and the bridging queries; False lets only the frame query read."""
    temporal_alignment: Literal["off", "features", "states"] = "states"
    """ETA: score every frame, and pool the aligned frames into the queries. From the LLM's states of the frame's
    tokens, which teaches the text path too (NOTES.md), or from vision features."""
    alignment_feedback: bool = True
    """Whether ETA's losses reach the LLM through those states; False trains the score alone, and the text learns nothing from it."""
    enrich: bool = True
    """Whether the aligned frames are pooled into the bridging queries; False leaves ETA an auxiliary loss."""
    layer_mixes: bool = True
    """Whether each decoder layer has a mix of the tapped layers of its own; False gives all the same."""
    frame_times: bool = True
    """Whether the decoder is told the time of its frame."""

    @model_validator(mode="after")
    def _divisible(self) -> "BridgeConfig":
        if self.width % 4 or self.width % self.num_heads:
            raise ValueError(f"width: expected a multiple of 4 and of num_heads={self.num_heads}, got {self.width}")
        return self


class InterleavedConfig(GrounderConfig):
    """The `interleaved` grounder (SpaceVLLM, 2503.13983); widths are our choice."""

    max_frames: Annotated[int, Field(ge=1)] = 64
    """Queries, one for each sampled frame of the longest video; 64 as in the paper. A video with more is an error."""
    attention: Literal["free", "learned"] = "free"
    """Dual attention by the LLM's states alone, as in the paper, or with projections of its own."""
    width: Annotated[int, Field(ge=16)] = 256
    """Of learned attention; free attention is as wide as the LLM."""
    num_heads: Annotated[int, Field(ge=1)] = 8
    """Of learned attention."""
    mlp_width: Annotated[int, Field(ge=16)] = 256

    @model_validator(mode="after")
    def _divisible(self) -> "InterleavedConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width: expected a multiple of num_heads={self.num_heads}, got {self.width}")
        return self


class LossConfig(Config):
    """Weights of the supervised losses. L1 5 and GIoU 2 as in DETR (2005.12872, appendix A.4) and TubeDETR."""

    text: Annotated[float, Field(ge=0)] = 1.0
    box_l1: Annotated[float, Field(ge=0)] = 5.0
    box_giou: Annotated[float, Field(ge=0)] = 2.0
    presence: Annotated[float, Field(ge=0)] = 1.0
    """Our choice."""
    alignment: Annotated[float, Field(ge=0)] = 1.0
    """ETA's BCE over frames; our choice."""
    contrast: Annotated[float, Field(ge=0)] = 0.1
    """ETA's InfoNCE over frames; our choice."""
    cells: Annotated[float, Field(ge=0)] = 1.0
    """ETA's BCE over vision tokens, with temporal_alignment=states; our choice."""


class ModelConfig(Config):
    """Backbone and grounder."""

    backbone: str = "Qwen/Qwen3-VL-4B-Instruct"
    """A Hugging Face name or a folder: any Qwen3-VL checkpoint, or a Qwen2.5-VL, whose prompts tell no times in text."""
    grounder: str = "bridge"
    """How a target is located: a name in GROUNDERS (model/grounders.py)."""
    bridge: BridgeConfig = BridgeConfig()
    interleaved: InterleavedConfig = InterleavedConfig()
    grounder_args: dict[str, Any] = {}
    """Keyword arguments of a grounder that has no section of its own here."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation (autocast); trained weights are kept in float32, by DeepSpeed where it is used."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex"] = "sdpa"
    """Kernel of the attention. flash_attention_2 needs CUDA, its package and bfloat16; flex, torch's flex_attention, is the
    LLM's alone (the vision tower has sdpa then) and trains on CUDA only. One never stands in for another."""
    freeze_vision: bool = True
    lora: LoraConfig | None = None
    """Adapters on the LLM instead of training it whole; checkpoints hold the merged weights."""
    frozen_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the MLLM's weights under LoRA, which are not trained, and of the merged ones that are stored. bfloat16, the released
    precision, takes half the memory and needs dtype=bfloat16; adapters and grounder are float32 either way."""
    gradient_checkpointing: bool = False

    def args_of_grounder(self) -> dict[str, Any]:
        """What the chosen grounder is built with."""
        section = getattr(self, self.grounder, None)
        return section.model_dump() if isinstance(section, GrounderConfig) else dict(self.grounder_args)

    @model_validator(mode="after")
    def _one_section(self) -> "ModelConfig":
        if self.grounder_args and isinstance(getattr(self, self.grounder, None), GrounderConfig):
            raise ValueError(f"grounder_args: {self.grounder} has a section of its own, model.{self.grounder}")
        return self

    @model_validator(mode="after")
    def _masks_of_queries(self) -> "ModelConfig":
        if self.grounder == "interleaved" and self.attention != "sdpa":
            raise ValueError(
                f"attention: grounder interleaved needs sdpa for the mask of its queries, got {self.attention}"
            )
        return self

    @model_validator(mode="after")
    def _adapters_alone(self) -> "ModelConfig":
        if self.lora is not None and not self.freeze_vision:
            raise ValueError("lora: needs freeze_vision=true; adapters are all that a step's folder keeps of the MLLM")
        return self

    @model_validator(mode="after")
    def _frozen_in_half_precision(self) -> "ModelConfig":
        if self.frozen_dtype == "bfloat16" and (self.lora is None or self.dtype != "bfloat16"):
            raise ValueError(
                "frozen_dtype=bfloat16: needs lora and dtype=bfloat16; trained weights are kept in float32"
            )
        return self
