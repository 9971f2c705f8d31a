"""The root module: an MLLM and a grounder behind one forward, and the checkpoint folder they are stored in.

    query + <t> + frame tokens + query ─▶ LLM ─▶ "<time> 2.0 - 5.5 </time>"  scored: log-probs, entropies
                                      └─ + the grounder's queries, same pass ─▶ grounder ─▶ boxes

An export is such a folder with the code to load it and a model card:

    config.json             this model's config: grounder, how to ask and how to sample frames
    grounder.safetensors    everything trained from scratch
    mllm/                   an ordinary Qwen3-VL checkpoint with its processor: transformers and vLLM load it as it is
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from data.collate import QueryCount
from model.answering import Grounding, ground
from model.backbone import encode_vision, hidden_states, load_mllm, score_tokens, vision_token_ids
from model.grounder import GrounderOutput
from model.grounders import build_grounder

GROUNDER_FILE = "grounder.safetensors"
MLLM_FOLDER = "mllm"


class GroundingConfig(PreTrainedConfig):
    """Serialisable description of a grounding model; the MLLM's own config lives in its folder."""

    model_type = "bridge_stg"

    grounder: str = "bridge"
    grounder_args: dict | None = None
    """Arguments of the grounder that do not follow from the MLLM."""
    prompt: dict | None = None
    """PromptConfig (configs/data.py), as trained."""
    video: dict | None = None
    """`sample_fps`, `num_frames`, `max_frames` and `max_prompt_tokens`, as trained."""


class GroundingOutput(NamedTuple):
    """logps_BL and entropies_BL of the scored tokens, 0 elsewhere; and what the grounder says."""

    logps_BL: Tensor
    entropies_BL: Tensor
    grounding: GrounderOutput


class GroundingModel(PreTrainedModel):
    """An MLLM (`mllm`) with a grounder (`grounder`)."""

    config: GroundingConfig
    config_class = GroundingConfig
    base_model_prefix = "mllm"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = True

    def __init__(self, config: GroundingConfig, mllm: Any) -> None:
        super().__init__(config)
        self.mllm = mllm
        self.grounder = build_grounder(config.grounder, mllm, config.grounder_args or {})
        self.banned_ids = vision_token_ids(mllm)

    @property
    def num_queries(self) -> QueryCount:
        """Slots that the collator leaves after the answer."""
        return self.grounder.num_queries

    @property
    def taps(self) -> list[int]:
        """LLM layers whose states of the slots the grounder reads."""
        return list(self.grounder.taps)

    @property
    def temporal_patch_size(self) -> int:
        """Frames that share one temporal patch."""
        return self.grounder.temporal_patch_size

    def forward(self, *, temperature: float = 1.0, **batch: Tensor) -> GroundingOutput:
        """One pass over a batch of data/collate.py: `collate_inputs`."""
        vision = encode_vision(self.mllm, batch["pixel_values"], batch["grid_thw"])
        queries, reach_N = self.grounder.query_embeddings(batch), self.grounder.query_reach(batch)
        states = hidden_states(self.mllm, batch, vision, queries, self.taps, reach_N)
        logps_BL, entropies_BL = score_tokens(
            self.mllm, states.last_BLD, batch, banned_ids=self.banned_ids, temperature=temperature
        )
        vision = vision.select(batch["vision_of_row"])
        grounding = self.grounder(states, vision, batch)
        return GroundingOutput(logps_BL, entropies_BL, grounding)

    def ground(self, processor: Any, **question: Any) -> Grounding:
        """Ask one question; see model/answering.py: `ground`."""
        return ground(self, processor, **question)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoint the MLLM's layers; the grounder is small."""
        self.mllm.gradient_checkpointing_enable(*args, **kwargs)

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, save_directory: Any, *, state_dict: dict[str, Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Write the checkpoint folder. `state_dict`, if given, is this module's, gathered from all ranks."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict() if state_dict is None else state_dict
        self.config.save_pretrained(folder)
        self.mllm.save_pretrained(folder / MLLM_FOLDER, state_dict=_under(state, "mllm."))
        has_weights = bool(self.grounder.state_dict())
        grounder = {k: v.contiguous() for k, v in _under(state, "grounder.").items()} if has_weights else {}
        save_file(grounder, folder / GROUNDER_FILE, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        dtype: torch.dtype = torch.float32,
        attn_implementation: str = "sdpa",
        **kwargs: Any,
    ) -> "GroundingModel":
        """Read a checkpoint folder, strictly: a missing or an unknown key of the grounder is an error.

        Other keyword arguments are those that AutoModel adds on its way; they are not used.
        """
        folder = Path(pretrained_model_name_or_path)
        config = GroundingConfig.from_pretrained(folder)
        model = cls(config, load_mllm(str(folder / MLLM_FOLDER), dtype=dtype, attention=attn_implementation))
        model.grounder.load_state_dict(load_file(folder / GROUNDER_FILE), strict=True)
        model.grounder.to(torch.float32)
        return model.eval()


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries below a prefix, without it. Raises ValueError when there is none: a wrapper's names, for example."""
    found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"no weight under {prefix!r} among {list(state)[:3]}...")
    return found
