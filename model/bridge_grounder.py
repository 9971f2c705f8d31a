"""The `bridge` grounder: STSB, ETA and QGSL put together.

    query states of M tapped LLM layers ─▶ STSB mix ─▶ bridge_NBKE ─▶ ETA enrich ─▶ bridge_NBKE ─┐
    states of the frame tokens in the middle layer ─▶ scores_BT ──────────┘                      ▼
    vision features ─▶ cells of the F chosen frames ─────────────────▶ QGSL decoder, N layers ─▶ boxes, presence

Source: Bridge-STG (2604.08014), abstract. Shapes as in bridge.py and spatial_decoder.py.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.backbone import LLMStates, VisionFeatures, decoder_layers, vision_width
from model.bridge import BridgingQueries, tapped_layers
from model.grounder import Batch, Grounder, GrounderOutput
from model.spatial_decoder import SpatialDecoder
from model.temporal_alignment import FeatureAlignment, StateAlignment


class BridgeGrounder(Grounder):
    """K queries after the answer, which read all before them."""

    answer_format = "span"
    tells_presence = True
    reward_terms = frozenset({"format", "temporal", "spatial", "viou", "gated"})

    def __init__(
        self, *, llm_width: int, vision_width: int, temporal_patch_size: int, num_queries: int, num_taps: int, width: int,
        num_layers: int, num_heads: int, ffn_width: int, features: str, interactive: bool, temporal_alignment: str,
        alignment_feedback: bool = True, enrich: bool = True, layer_mixes: bool = True, frame_times: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = features
        self.num_queries = num_queries
        self.temporal_patch_size = temporal_patch_size
        self.queries = BridgingQueries(
            num_queries=num_queries,
            llm_width=llm_width,
            width=width,
            num_taps=num_taps,
            num_layers=num_layers,
            layer_mixes=layer_mixes,
        )
        self.alignment = {
            "off": lambda: None,
            "states": lambda: StateAlignment(
                llm_width=llm_width, width=width, enrich=enrich, feedback=alignment_feedback
            ),
            "features": lambda: FeatureAlignment(vision_width=vision_width, width=width, enrich=enrich),
        }[temporal_alignment]()
        self.decoder = SpatialDecoder(
            vision_width=vision_width,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            ffn_width=ffn_width,
            interactive=interactive,
            frame_times=frame_times,
            temporal_patch_size=temporal_patch_size,
        )

    @classmethod
    def build(cls, mllm: Any, args: Mapping[str, Any]) -> Self:
        """As many tapped layers as the LLM has, at most `num_taps`."""
        taps = tapped_layers(len(decoder_layers(mllm)), args["num_taps"])
        grounder = cls(
            llm_width=mllm.config.text_config.hidden_size,
            vision_width=vision_width(mllm.config, args["features"]),
            temporal_patch_size=mllm.config.vision_config.temporal_patch_size,
            **{**args, "num_taps": len(taps)},
        )
        grounder.taps = tuple(taps)
        return grounder

    def query_embeddings(self, batch: Batch) -> Tensor:
        """The bridging queries, [K, D]."""
        return self.queries.embedding.weight

    def forward(self, states: LLMStates, vision: VisionFeatures, batch: Batch) -> GrounderOutput:
        """Boxes, presence and alignment."""
        frame_position_BF = batch["frame_position"]
        assert states.queries_BMKD is not None, "the bridge has taps"
        bridge_NBKE = self.queries(states.queries_BMKD)
        rows = [vision.cells(row, self.features) for row in range(len(states.frames))]
        mask_BT = _pad([torch.ones(len(cells), dtype=torch.bool, device=bridge_NBKE.device) for cells, _ in rows])
        scores_BT = cells_BN = None
        if self.alignment is not None:
            frames = states.frames if isinstance(self.alignment, StateAlignment) else [cells for cells, _ in rows]
            scores_BT, bridge_NBKE, cells_BN = self.alignment(bridge_NBKE, frames, mask_BT)
        chosen = [self._chosen(cells, positions) for (cells, _), positions in zip(rows, frame_position_BF, strict=True)]
        cells_BFSC = _pad([cells.transpose(0, 1) for cells in chosen]).transpose(1, 2).to(bridge_NBKE.dtype)
        cell_mask_BS = _pad([torch.ones(len(xy), dtype=torch.bool, device=xy.device) for _, xy in rows])
        boxes, presence = self.decoder(
            bridge_NBKE,
            cells_BFSC,
            cell_mask_BS[:, None].expand(-1, cells_BFSC.shape[1], -1),
            _pad([xy for _, xy in rows]),
            frame_position_BF.clamp(min=0) % self.temporal_patch_size,
            batch["frame_time_sec"],
        )
        return GrounderOutput(boxes, presence, scores_BT, mask_BT, cells_BN)

    def _chosen(self, cells_TSC: Tensor, positions_F: Tensor) -> Tensor:
        """Cells of each chosen frame's temporal patch, [F, S, C]."""
        return cells_TSC[positions_F.clamp(min=0) // self.temporal_patch_size]


def _pad(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
