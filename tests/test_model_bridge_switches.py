"""Every part of the `bridge` grounder can be switched off, and then does nothing.

Shapes as in model/bridge_grounder.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from configs.model import BridgeConfig
from model.backbone import LLMStates, VisionFeatures
from model.bridge import tapped_layers
from model.bridge_grounder import BridgeGrounder
from model.grounder import GrounderOutput

LLM_WIDTH, VISION_WIDTH, ROWS, PATCHES, CELLS = 24, 12, 2, 3, 4


def make_grounder(**switches: Any) -> BridgeGrounder:
    """Small and random, its box heads too: they start at zero, which would hide everything before them."""
    torch.manual_seed(0)
    args = BridgeConfig(num_queries=4, num_taps=2, width=16, num_layers=2, num_heads=2, ffn_width=32, **switches)
    grounder = BridgeGrounder(
        llm_width=LLM_WIDTH, vision_width=VISION_WIDTH, temporal_patch_size=2, **args.model_dump()
    ).eval()
    for head in grounder.decoder.box_heads:
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    torch.nn.init.normal_(grounder.queries.mix_logits_NM)
    return grounder


def states_and_vision(*, frames_scale: float = 1.0) -> tuple[LLMStates, VisionFeatures]:
    """Two rows of three temporal patches of 4 x 4 patches, merged 2 x 2."""
    generator = torch.Generator().manual_seed(1)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    frames = tuple((frames_scale * rand(PATCHES, CELLS, LLM_WIDTH)).requires_grad_() for _ in range(ROWS))
    states = LLMStates(rand(ROWS, 5, LLM_WIDTH), rand(ROWS, 2, 4, LLM_WIDTH), frames)
    vision = VisionFeatures(
        merged=tuple(rand(PATCHES * CELLS, LLM_WIDTH) for _ in range(ROWS)),
        deepstack=(),
        patches=tuple(rand(PATCHES * CELLS * 4, VISION_WIDTH) for _ in range(ROWS)),
        grid_V3=torch.tensor([[PATCHES, 4, 4]] * ROWS),
        merge=2,
    )
    return states, vision


def ask(grounder: BridgeGrounder, *, shift_sec: float = 0.0, frames_scale: float = 1.0) -> GrounderOutput:
    states, vision = states_and_vision(frames_scale=frames_scale)
    position_BF = torch.tensor([[0, 3], [2, 5]])
    return grounder(states, vision, {"frame_position": position_BF, "frame_time_sec": position_BF * 0.5 + shift_sec})


def boxes_differ(a: GrounderOutput, b: GrounderOutput) -> bool:
    return bool((a.boxes_cxcywh_NBF4 - b.boxes_cxcywh_NBF4).abs().max() > 1e-6)


@pytest.mark.parametrize("frame_times", [True, False])
def test_frame_times(frame_times: bool) -> None:
    """All frames 5 s later: the decoder knows, or not."""
    grounder = make_grounder(frame_times=frame_times)
    assert boxes_differ(ask(grounder), ask(grounder, shift_sec=5.0)) == frame_times


@pytest.mark.parametrize("enrich", [True, False])
@pytest.mark.parametrize("form", ["states", "features"])
def test_enrich(enrich: bool, form: str) -> None:
    """What frames are aligned with reaches the boxes through the queries alone."""
    grounder = make_grounder(enrich=enrich, temporal_alignment=form)
    before = ask(grounder)
    assert grounder.alignment is not None
    with torch.no_grad():
        for name, parameter in grounder.alignment.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    assert boxes_differ(before, ask(grounder)) == enrich


@pytest.mark.parametrize("layer_mixes", [True, False])
def test_layer_mixes(layer_mixes: bool) -> None:
    """Bridging queries of the two decoder layers: each a mix of its own, or the same."""
    states, _ = states_and_vision()
    bridge_NBKE = make_grounder(layer_mixes=layer_mixes).queries(states.queries_BMKD)
    assert bridge_NBKE.shape == (2, ROWS, 4, 16)
    assert torch.equal(bridge_NBKE[0], bridge_NBKE[1]) != layer_mixes


@pytest.mark.parametrize("feedback", [True, False])
def test_alignment_feedback(feedback: bool) -> None:
    """The gradient of ETA's scores reaches the LLM's states, or stops before them."""
    grounder = make_grounder(alignment_feedback=feedback)
    states, vision = states_and_vision()
    zeros_B1 = torch.zeros(ROWS, 1)
    output = grounder(states, vision, {"frame_position": zeros_B1.long(), "frame_time_sec": zeros_B1})
    assert output.alignment_BT is not None and output.cells_BN is not None
    (output.alignment_BT.sum() + output.cells_BN.sum()).backward()
    assert [frames.grad is not None for frames in states.frames] == [feedback] * ROWS
    assert grounder.alignment is not None and grounder.alignment.score.weight.grad is not None


def test_alignment_off_has_no_parameters() -> None:
    names = [name for name, _ in make_grounder(temporal_alignment="off").named_parameters()]
    assert not [name for name in names if name.startswith("alignment")]
    assert ask(make_grounder(temporal_alignment="off")).alignment_BT is None


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ({"frame_times": False}, {"decoder.time.weight", "decoder.time.bias"}),
        ({"enrich": False}, {"alignment.enrich.weight", "alignment.enrich.bias"}),
        ({"layer_mixes": False}, set()),
        ({"alignment_feedback": False}, set()),
    ],
)
def test_a_switch_takes_its_parameters_along(switch: dict[str, bool], gone: set[str]) -> None:
    def names(**switches: Any) -> set[str]:
        return {name for name, _ in make_grounder(**switches).named_parameters()}

    assert names() - names(**switch) == gone


@pytest.mark.parametrize(
    ("num_layers", "num_taps", "expected"), [(36, 4, [8, 17, 26, 35]), (4, 1, [3]), (2, 4, [0, 1])]
)
def test_tapped_layers(num_layers: int, num_taps: int, expected: list[int]) -> None:
    assert tapped_layers(num_layers, num_taps) == expected
