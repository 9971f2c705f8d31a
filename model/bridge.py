"""STSB: spatio-temporal semantic bridging. K learned queries carry the MLLM's state to the spatial decoder.

Source: Bridge-STG (2604.08014), abstract: "distills the MLLM's temporal reasoning context into enriched bridging
queries". Where the queries stand (after the answer, so that they see it), how many layers are tapped and how they are
mixed are our choice: the method section is not public to us.

Shapes: B rows, M tapped LLM layers, K queries, D width of the LLM, E width of the decoder, N decoder layers.
"""

import torch
from torch import Tensor, nn


def tapped_layers(num_llm_layers: int, num_taps: int) -> list[int]:
    """Indices of `num_taps` layers spread evenly, the last one included. (36, 4) -> [8, 17, 26, 35]."""
    num_taps = min(num_taps, num_llm_layers)
    return [round((i + 1) * num_llm_layers / num_taps) - 1 for i in range(num_taps)]


class BridgingQueries(nn.Module):
    """The query embeddings and their mix: each decoder layer reads its own softmax mix of the tapped layers.

    Without `layer_mixes` there is one mix for all of them.

    The embeddings are outside of the vocabulary: they are never generated, and vLLM never sees them.
    """

    def __init__(
        self, *, num_queries: int, llm_width: int, width: int, num_taps: int, num_layers: int, layer_mixes: bool
    ) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.embedding = nn.Embedding(num_queries, llm_width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.tap_norms = nn.ModuleList([nn.LayerNorm(llm_width) for _ in range(num_taps)])
        self.mix_logits_NM = nn.Parameter(torch.zeros(num_layers if layer_mixes else 1, num_taps))
        self.project = nn.Linear(llm_width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, states_BMKD: Tensor) -> Tensor:
        """-> bridge_NBKE, one set of queries for each decoder layer."""
        weight = self.project.weight
        normed = torch.stack([norm(states_BMKD[:, m].to(weight.dtype)) for m, norm in enumerate(self.tap_norms)], dim=1)
        mixed_NBKD = torch.einsum("nm,bmkd->nbkd", self.mix_logits_NM.softmax(dim=-1), normed)
        return self.norm(self.project(mixed_NBKD)).expand(self.num_layers, -1, -1, -1)
