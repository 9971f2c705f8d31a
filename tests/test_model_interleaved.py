"""Dual attention by hand, its switch, and what a config of a grounder may not say.

One row of six tokens of width 2: text, two cells of the one frame, the question, the answer, the frame's slot.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from own_grounder import Mine
from tiny import Tiny
from torch import Tensor

from configs.data import DataConfig
from configs.model import InterleavedConfig, ModelConfig
from configs.sources import SyntheticSource
from model.backbone import LLMStates, VisionFeatures
from model.build import build_model, load_checkpoint
from model.grounders import GROUNDERS, GrounderError, build_grounder, check_grounder, grounder_class
from model.interleaved_grounder import InterleavedGrounder

FAR = [100.0, 100.0]  # of tokens that no one is to read
BATCH = {
    "mm_token_type_ids": torch.tensor([[0, 2, 2, 0, 0, 0]]),
    "query_mask": torch.tensor([[False] * 5 + [True]]),
    "prompt_length": torch.tensor([4]),
    "frame_position": torch.tensor([[0]]),
    "grid_thw": torch.tensor([[1, 2, 4]]),
    "vision_of_row": torch.tensor([0]),
    "vision_is_image": torch.tensor([False]),
}
VISION = VisionFeatures((), (), (), BATCH["grid_thw"], 2)


def make_grounder(attention: str = "free") -> InterleavedGrounder:
    torch.manual_seed(0)
    args = InterleavedConfig(max_frames=4, attention=attention, width=16, num_heads=2, mlp_width=16)  # type: ignore[arg-type]
    return InterleavedGrounder(llm_width=2, temporal_patch_size=2, **args.model_dump())


def box_of(grounder: InterleavedGrounder, *, question: list[float], query: list[float]) -> Tensor:
    states_BLD = torch.tensor([[FAR, [2.0, 0.0], [0.0, 2.0], question, FAR, query]])
    with torch.no_grad():
        return grounder(LLMStates(states_BLD, None, ()), VISION, BATCH).boxes_cxcywh_NBF4[0, 0, 0]


def test_the_query_reads_its_frame_by_hand() -> None:
    """A question of zeros adds nothing to the cells (2, 0) and (0, 2). The query (ln 3 / sqrt 2, 0) has scores
    q . c / sqrt 2 = (ln 3, 0), weights 3/4 and 1/4, and becomes (ln 3 / sqrt 2 + 1.5, .5)."""
    grounder = make_grounder()
    box = box_of(grounder, question=[0.0, 0.0], query=[math.log(3) / math.sqrt(2), 0.0])
    expected = grounder.box(torch.tensor([math.log(3) / math.sqrt(2) + 1.5, 0.5])).sigmoid()
    torch.testing.assert_close(box, expected)


def test_the_cells_read_the_question_by_hand() -> None:
    """One token to read has weight 1: the cells become (3, 1) and (1, 3); a query of zeros weighs them alike: (2, 2)."""
    grounder = make_grounder()
    box = box_of(grounder, question=[1.0, 1.0], query=[0.0, 0.0])
    torch.testing.assert_close(box, grounder.box(torch.tensor([2.0, 2.0])).sigmoid())


@pytest.mark.parametrize(("attention", "own"), [("free", set()), ("learned", {"embed", "read_text", "read_frame"})])
def test_free_attention_has_no_parameters(attention: str, own: set[str]) -> None:
    names = {name.partition(".")[0] for name, _ in make_grounder(attention).named_parameters()}
    assert names == {"queries", "box"} | own


def test_learned_attention_reads_question_and_frame() -> None:
    grounder = make_grounder("learned")
    boxes = [box_of(grounder, question=[x, 1.0], query=[y, 0.0]) for x, y in ((0.0, 0.0), (3.0, 0.0), (0.0, 3.0))]
    assert all(float((boxes[0] - other).abs().max()) > 1e-6 for other in boxes[1:])


def test_no_chosen_frame() -> None:
    batch = BATCH | {"frame_position": torch.zeros(1, 0, dtype=torch.long), "query_mask": torch.zeros(1, 6).bool()}
    output = make_grounder()(LLMStates(torch.randn(1, 6, 2), None, ()), VISION, batch)
    assert output.boxes_cxcywh_NBF4.shape == (1, 1, 0, 4) and output.presence_NBF.shape == (0, 1, 0)


def config(backbone: Path, **changes: Any) -> ModelConfig:
    return ModelConfig(backbone=str(backbone), dtype="float32", **changes)


def test_an_unknown_grounder_is_named(backbone: Path, source: SyntheticSource) -> None:
    expected = r"model.grounder: expected one of bridge, interleaved.*; got 'brige'"
    with pytest.raises(GrounderError, match=expected):
        build_model(config(backbone, grounder="brige"), DataConfig(source=source))
    with pytest.raises(GrounderError, match=expected):
        grounder_class("brige")


def test_a_grounder_of_ones_own(backbone: Path, source: SyntheticSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class, a line in the dict and `grounder_args`."""
    monkeypatch.setitem(GROUNDERS, "mine", "own_grounder:Mine")
    args = InterleavedConfig(max_frames=7).model_dump()
    model, _ = build_model(config(backbone, grounder="mine", grounder_args=args), DataConfig(source=source))
    assert isinstance(model.grounder, Mine) and model.grounder.queries.num_embeddings == 8
    assert model.config.grounder == "mine" and model.config.grounder_args == args


def test_arguments_belong_into_the_section(backbone: Path) -> None:
    with pytest.raises(ValueError, match=r"grounder_args: interleaved has a section of its own, model.interleaved"):
        config(backbone, grounder="interleaved", grounder_args={"max_frames": 4})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (
            {"widht": 64},
            r"model.grounder_args.widht: unknown key; mine takes max_frames, attention, width, .*mlp_width$",
        ),
        ({"llm_width": 64}, r"model.grounder_args.llm_width: unknown key"),
        ({"max_frames": 4}, r"model.grounder_args.attention: is missing; mine takes max_frames"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    args: dict[str, int], expected: str, source: SyntheticSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before weights are read."""
    monkeypatch.setitem(GROUNDERS, "mine", "own_grounder:Mine")
    with pytest.raises(GrounderError, match=expected):
        build_model(config(Path("no/weights"), grounder="mine", grounder_args=args), DataConfig(source=source))


def test_a_grounder_without_arguments_says_so() -> None:
    with pytest.raises(GrounderError, match=r"model.grounder_args.x: unknown key; text takes none"):
        check_grounder("text", {"x": 1})


@pytest.mark.parametrize(
    ("cls", "args", "expected"),
    [
        ("Varied", {"max_frames": 4}, r"model.grounder_args.width: is missing; mine takes width$"),
        ("Varied", {"width": 64, "llm_width": 4}, r"model.grounder_args.llm_width: unknown key; mine takes width$"),
        ("Bare", {"x": 1}, r"model.grounder_args.x: unknown key; mine takes none$"),
    ],
)
def test_arguments_without_names_are_none_that_are_missing(
    cls: str, args: dict[str, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`*args, **kwargs` in a constructor, and a class without one, which has the `*args, **kwargs` of torch's Module."""
    monkeypatch.setitem(GROUNDERS, "mine", f"own_grounder:{cls}")
    with pytest.raises(GrounderError, match=expected):
        check_grounder("mine", args)


def test_a_constructor_may_take_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUNDERS, "mine", "own_grounder:Varied")
    check_grounder("mine", {"width": 64, "max_frames": 4})


def test_a_grounder_may_have_no_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUNDERS, "mine", "own_grounder:Bare")
    assert type(build_grounder("mine", None, {})).__name__ == "Bare"


def test_an_attention_without_masks_of_ours_is_refused(tiny_of: dict[str, Tiny], backbone: Path) -> None:
    """In a run's config, and where a checkpoint is loaded."""
    with pytest.raises(ValueError, match=r"attention: grounder interleaved needs sdpa .*, got eager"):
        config(backbone, grounder="interleaved", attention="eager")
    with pytest.raises(ValueError, match=r"model.attention: grounder interleaved needs sdpa .*, got eager"):
        load_checkpoint(tiny_of["interleaved"].folder, dtype="float32", attention="eager")
