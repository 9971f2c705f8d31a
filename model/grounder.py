"""What a grounder is: how a model says where its target is. The rest of the pipeline knows grounders by this alone.

A grounder says how many query slots stand after the answer and what they may read, gives their embeddings, and turns the
states of the LLM into boxes. How its answers are written, data/written_answers.py knows under `answer_format`.
model/grounders.py lists them; CONTRIBUTING.md says how one is added.

Shapes: N decoder layers, B rows, F chosen frames, T temporal patches, K query slots, D width of the LLM.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from data.collate import QueryCount
from data.written_answers import AnswerFormat
from model.backbone import LLMStates, VisionFeatures

Batch = Mapping[str, Tensor]


class GrounderOutput(NamedTuple):
    """boxes_cxcywh_NBF4 in (0, 1) and presence logits presence_NBF after each decoder layer; the last one counts.

    What a grounder does not say has N = 0 layers: presence of one without such a head, boxes of one that writes them.
    alignment_BT: logits of each temporal patch, None without ETA; alignment_mask_BT: real patches. cells_BN: logits of
    each vision token, None where ETA does not score them.
    """

    boxes_cxcywh_NBF4: Tensor
    presence_NBF: Tensor
    alignment_BT: Tensor | None = None
    alignment_mask_BT: Tensor | None = None
    cells_BN: Tensor | None = None


class Grounder(nn.Module, ABC):
    """One way to ground. Its parameters are all that is trained from scratch, under one prefix of the checkpoint."""

    answer_format: ClassVar[AnswerFormat]
    """How questions are put and answers are written: a name in data/written_answers.py."""
    reward_terms: ClassVar[frozenset[str]]
    """The terms of rewards/ that its answers can earn."""
    writes_boxes: ClassVar[bool] = False
    """Whether the boxes are in the text of the answer; then `forward` gives none, and nothing is trained but the text."""

    tells_presence: ClassVar[bool] = False
    """Whether `forward` says in which frames the sentence holds."""

    num_queries: QueryCount = 0
    """Query slots after the answer: a number, or "per_frame", one for each chosen frame in their order."""
    taps: tuple[int, ...] = ()
    """LLM layers whose states of the slots `forward` wants; none for those of the last layer alone."""
    temporal_patch_size: int

    @classmethod
    @abstractmethod
    def build(cls, mllm: Any, args: Mapping[str, Any]) -> Self:
        """A fresh grounder for the backbone; args: its section of the config, keys as checked by model/grounders.py."""

    @abstractmethod
    def query_embeddings(self, batch: Batch) -> Tensor:
        """What stands in the slots: [K, D] for every row alike, or one for each slot of the batch, row by row."""

    def query_reach(self, batch: Batch) -> Tensor | None:
        """How many tokens of its row each slot reads, [slots of the batch], and no slot another; None: all before it.

        A slot with a reach stands where its last token is (model/side_tokens.py). No token of the prompt or the answer
        ever reads a slot.
        """
        return None

    @abstractmethod
    def forward(self, states: LLMStates, vision: VisionFeatures, batch: Batch) -> GrounderOutput:
        """Boxes of the chosen frames of a batch of `collate_inputs`; `vision` has one input for each row."""
