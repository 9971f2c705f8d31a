"""QGSL: query-guided spatial localisation. A DETR-like decoder that looks at one frame at a time.

Source: Bridge-STG (2604.08014), abstract: "a purpose-built spatial decoder with multi-layer interactive queries";
layer structure after DETR (2005.12872), box refinement after Deformable DETR (2010.04159, section 4.2) but without
its detached boxes, so that a gradient through the boxes is the whole gradient. Ours: each
frame has one query and meets only its own features and a copy of the bridging queries, never another frame. So a box
does not depend on which other frames were chosen, and the cost grows with the chosen frames alone.

Shapes: B rows, F chosen frames, R = B * F, S cells of a frame, K bridging queries, E width, N layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.position_encoding import point_encoding, sine_encoding


class FrameBoxes(NamedTuple):
    """After each decoder layer: boxes_cxcywh_NBF4 in (0, 1), presence logits presence_NBF. The last layer counts."""

    boxes_cxcywh_NBF4: Tensor
    presence_NBF: Tensor


class Attention(nn.Module):
    """Multi-head attention; `mask` is True where a key may be read."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """[R, Q, E], [R, S, E], [R, S, E], [R, S] -> [R, Q, E]."""

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

        attended = nn.functional.scaled_dot_product_attention(
            heads(self.query(queries)),
            heads(self.key(keys)),
            heads(self.value(values)),
            attn_mask=None if mask is None else mask[:, None, None],
        )
        return self.out(attended.transpose(1, 2).flatten(-2))


class DecoderLayer(nn.Module):
    """Frame query <-> bridging queries, then frame query <- its frame, then an MLP. Pre-norm.

    Interactive: the frame's query and its K bridging queries attend to one another, and all of them change. Otherwise
    only the frame's query does.
    """

    def __init__(self, width: int, num_heads: int, ffn_width: int, *, interactive: bool) -> None:
        super().__init__()
        self.interactive = interactive
        self.meet_bridge = Attention(width, num_heads)
        self.read_frame = Attention(width, num_heads)
        self.mlp = nn.Sequential(nn.Linear(width, ffn_width), nn.GELU(), nn.Linear(ffn_width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])

    def forward(
        self,
        query_R1E: Tensor,
        bridge_RKE: Tensor,
        cells_RSE: Tensor,
        mask_RS: Tensor,
        where_R1E: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """where_R1E encodes the centre of the current box, so that a query looks where it believes to be."""
        tokens = self.norms[0](torch.cat([query_R1E, bridge_RKE], dim=1))
        if self.interactive:
            change = self.meet_bridge(tokens, tokens, tokens)
            query_R1E, bridge_RKE = query_R1E + change[:, :1], bridge_RKE + change[:, 1:]
        else:
            query_R1E = query_R1E + self.meet_bridge(tokens[:, :1], tokens, tokens)
        looking = self.norms[1](query_R1E) + where_R1E
        query_R1E = query_R1E + self.read_frame(looking, cells_RSE, cells_RSE, mask_RS)
        return query_R1E + self.mlp(self.norms[2](query_R1E)), bridge_RKE


class SpatialDecoder(nn.Module):
    """N layers; every layer moves the box a little and says whether the target is present."""

    def __init__(
        self, *, vision_width: int, width: int, num_layers: int, num_heads: int, ffn_width: int, interactive: bool,
        frame_times: bool, temporal_patch_size: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.embed_cells = nn.Sequential(
            nn.LayerNorm(vision_width), nn.Linear(vision_width, width), nn.LayerNorm(width)
        )
        self.query = nn.Parameter(torch.randn(width) * 0.02)
        self.slot = nn.Embedding(temporal_patch_size, width)
        self.time = nn.Linear(width, width) if frame_times else None
        self.where = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            [DecoderLayer(width, num_heads, ffn_width, interactive=interactive) for _ in range(num_layers)]
        )
        self.out_norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(num_layers)])
        self.box_heads = nn.ModuleList([_mlp(width, 4) for _ in range(num_layers)])
        self.presence_heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(num_layers)])
        # The first guess, before any layer: a box in the middle.
        self.first_box_4: Tensor
        self.register_buffer("first_box_4", torch.logit(torch.tensor([0.5, 0.5, 0.3, 0.3])), persistent=False)

    def forward(
        self,
        bridge_NBKE: Tensor,
        cells_BFSC: Tensor,
        cell_mask_BFS: Tensor,
        centres_BS2: Tensor,
        slot_BF: Tensor,
        time_sec_BF: Tensor,
    ) -> FrameBoxes:
        """cells_BFSC: vision features of each chosen frame's temporal patch; centres_BS2: where the cells are.

        slot_BF: which frame of its temporal patch a frame is. Padding frames give boxes too; mask them outside.
        """
        num_rows, num_frames, num_cells, _ = cells_BFSC.shape
        total = num_rows * num_frames
        cells_RSE = self.embed_cells(cells_BFSC).reshape(total, num_cells, self.width)
        # Places are in the values too, unlike in DETR: what is attended to tells the query where it is (NOTES.md).
        places_BSE = point_encoding(centres_BS2, self.width).to(cells_RSE.dtype)
        cells_RSE = cells_RSE + places_BSE.repeat_interleave(num_frames, dim=0)
        # An all-masked row (padding) would give NaN; its first cell is read instead and the result not used.
        mask_RS = cell_mask_BFS.reshape(total, num_cells)
        mask_RS = mask_RS | (
            (~mask_RS.any(dim=1, keepdim=True)) & (torch.arange(num_cells, device=mask_RS.device) == 0)
        )
        query_R1E = self._queries(slot_BF, time_sec_BF).reshape(total, 1, self.width)
        box_logit_R4 = self.first_box_4.expand(total, 4)
        bridge_RKE = torch.zeros((), dtype=cells_RSE.dtype, device=cells_RSE.device)
        boxes, presence = [], []
        for n, layer in enumerate(self.layers):
            where_R1E = self.where(point_encoding(box_logit_R4[:, :2].sigmoid(), self.width).to(cells_RSE.dtype))[
                :, None
            ]
            bridge_RKE = bridge_RKE + bridge_NBKE[n].repeat_interleave(num_frames, dim=0)
            query_R1E, bridge_RKE = layer(query_R1E, bridge_RKE, cells_RSE, mask_RS, where_R1E)
            state_RE = self.out_norms[n](query_R1E[:, 0])
            box_logit_R4 = box_logit_R4 + self.box_heads[n](state_RE).float()
            boxes.append(box_logit_R4.sigmoid())
            presence.append(self.presence_heads[n](state_RE)[:, 0].float())
        shape = (len(self.layers), num_rows, num_frames)
        return FrameBoxes(torch.stack(boxes).reshape(*shape, 4), torch.stack(presence).reshape(shape))

    def _queries(self, slot_BF: Tensor, time_sec_BF: Tensor) -> Tensor:
        """A query for each frame, [B, F, E]: which frame of its patch it is and, with `frame_times`, when."""
        query_BFE = self.query + self.slot(slot_BF)
        if self.time is None:
            return query_BFE
        return query_BFE + self.time(sine_encoding(time_sec_BF, self.width, max_period=1000.0).to(query_BFE.dtype))


def _mlp(width: int, out: int) -> nn.Sequential:
    """Two hidden layers; the output starts at 0, so that the first boxes are the first guess."""
    last = nn.Linear(width, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last)
