"""The spatial decoder: a frame's box depends on its own frame and sentence, on nothing around it in the batch."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from model.spatial_decoder import FrameBoxes, SpatialDecoder

NUM_LAYERS, NUM_QUERIES, WIDTH, VISION_WIDTH = 3, 4, 32, 10


class Inputs(NamedTuple):
    """Arguments of SpatialDecoder.forward."""

    bridge_NBKE: Tensor
    cells_BFSC: Tensor
    cell_mask_BFS: Tensor
    centres_BS2: Tensor
    slot_BF: Tensor
    time_sec_BF: Tensor


@pytest.fixture(params=[True, False], ids=["interactive", "reading"])
def decoder(request: pytest.FixtureRequest) -> SpatialDecoder:
    """Small and random; the box heads too, whose last layer starts at zero and would hide everything before it."""
    torch.manual_seed(0)
    decoder = SpatialDecoder(
        vision_width=VISION_WIDTH,
        width=WIDTH,
        num_layers=NUM_LAYERS,
        num_heads=4,
        ffn_width=48,
        interactive=request.param,
        frame_times=True,
        temporal_patch_size=2,
    )
    for head in decoder.box_heads:
        torch.nn.init.normal_(head[-1].weight, std=0.5)
    return decoder.eval()


def make_inputs(*, rows: int = 3, frames: int = 4, cells: int = 6) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    return Inputs(
        bridge_NBKE=torch.randn(NUM_LAYERS, rows, NUM_QUERIES, WIDTH, generator=generator),
        cells_BFSC=torch.randn(rows, frames, cells, VISION_WIDTH, generator=generator),
        cell_mask_BFS=torch.ones(rows, frames, cells, dtype=torch.bool),
        centres_BS2=torch.rand(rows, cells, 2, generator=generator),
        slot_BF=torch.randint(0, 2, (rows, frames), generator=generator),
        time_sec_BF=torch.rand(rows, frames, generator=generator) * 20,
    )


def assert_same(actual: FrameBoxes, expected: FrameBoxes) -> None:
    torch.testing.assert_close(actual.boxes_cxcywh_NBF4, expected.boxes_cxcywh_NBF4, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(actual.presence_NBF, expected.presence_NBF, atol=1e-5, rtol=1e-4)


def test_shapes_and_range(decoder: SpatialDecoder) -> None:
    out = decoder(*make_inputs())
    assert out.boxes_cxcywh_NBF4.shape == (NUM_LAYERS, 3, 4, 4)
    assert out.presence_NBF.shape == (NUM_LAYERS, 3, 4)
    assert ((out.boxes_cxcywh_NBF4 > 0) & (out.boxes_cxcywh_NBF4 < 1)).all()


def test_first_guess_is_a_box_in_the_middle() -> None:
    """A fresh decoder's heads are zero, so every layer says (.5, .5, .3, .3)."""
    decoder = SpatialDecoder(
        vision_width=VISION_WIDTH, width=WIDTH, num_layers=2, num_heads=4, ffn_width=48, interactive=True,
        frame_times=True, temporal_patch_size=2,
    )  # fmt: skip
    boxes = decoder(*make_inputs()).boxes_cxcywh_NBF4
    torch.testing.assert_close(boxes, torch.tensor([0.5, 0.5, 0.3, 0.3]).expand_as(boxes))


def test_batched_equals_single(decoder: SpatialDecoder) -> None:
    inputs = make_inputs()
    batched = decoder(*inputs)
    for b in range(3):
        row = Inputs(inputs.bridge_NBKE[:, b : b + 1], *(tensor[b : b + 1] for tensor in inputs[1:]))
        assert_same(decoder(*row), FrameBoxes(*(tensor[:, b : b + 1] for tensor in batched)))


@pytest.mark.parametrize("chosen", [[2], [0, 3], [3, 1, 0]])
def test_a_box_does_not_depend_on_the_other_frames(decoder: SpatialDecoder, chosen: list[int]) -> None:
    """Any subset, in any order, gives the chosen columns of the whole."""
    inputs = make_inputs()
    subset = inputs._replace(
        cells_BFSC=inputs.cells_BFSC[:, chosen],
        cell_mask_BFS=inputs.cell_mask_BFS[:, chosen],
        slot_BF=inputs.slot_BF[:, chosen],
        time_sec_BF=inputs.time_sec_BF[:, chosen],
    )
    assert_same(decoder(*subset), FrameBoxes(*(tensor[:, :, chosen] for tensor in decoder(*inputs))))


def test_cell_padding_invariant(decoder: SpatialDecoder) -> None:
    """Extra cells that are masked, whatever they hold, change nothing."""
    inputs = make_inputs()
    padded = inputs._replace(
        cells_BFSC=torch.cat([inputs.cells_BFSC, torch.full((3, 4, 5, VISION_WIDTH), 7.0)], dim=2),
        cell_mask_BFS=torch.cat([inputs.cell_mask_BFS, torch.zeros(3, 4, 5, dtype=torch.bool)], dim=2),
        centres_BS2=torch.cat([inputs.centres_BS2, torch.zeros(3, 5, 2)], dim=1),
    )
    assert_same(decoder(*padded), decoder(*inputs))


def test_order_of_cells_does_not_matter(decoder: SpatialDecoder) -> None:
    """Cells are a set: their place is told by their centres alone."""
    inputs, order = make_inputs(), torch.tensor([5, 2, 0, 1, 4, 3])
    shuffled = inputs._replace(cells_BFSC=inputs.cells_BFSC[:, :, order], centres_BS2=inputs.centres_BS2[:, order])
    assert_same(decoder(*shuffled), decoder(*inputs))


def test_every_input_is_read(decoder: SpatialDecoder) -> None:
    """Changing the sentence, the picture, where the cells are, the slot or the time moves the last box."""
    inputs = make_inputs()
    boxes = decoder(*inputs).boxes_cxcywh_NBF4[-1]
    for name in ("bridge_NBKE", "cells_BFSC", "centres_BS2", "slot_BF", "time_sec_BF"):
        value = getattr(inputs, name)
        changed = inputs._replace(**{name: 1 - value})
        assert (decoder(*changed).boxes_cxcywh_NBF4[-1] - boxes).abs().amax(dim=-1).min() > 1e-6, name


def test_padding_frames_stay_finite(decoder: SpatialDecoder) -> None:
    """A frame with every cell masked gives a box without meaning, but no NaN in it nor in any gradient."""
    inputs = make_inputs()
    mask_BFS = inputs.cell_mask_BFS.clone()
    mask_BFS[1, 2:] = False
    padded = decoder(*inputs._replace(cell_mask_BFS=mask_BFS))
    assert padded.boxes_cxcywh_NBF4.isfinite().all() and padded.presence_NBF.isfinite().all()
    whole = decoder(*inputs)
    assert_same(FrameBoxes(*(t[:, 1, :2] for t in padded)), FrameBoxes(*(t[:, 1, :2] for t in whole)))
    padded.boxes_cxcywh_NBF4.sum().backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_no_frames(decoder: SpatialDecoder) -> None:
    """A batch of tasks without boxes."""
    out = decoder(*make_inputs(frames=0))
    assert out.boxes_cxcywh_NBF4.shape == (NUM_LAYERS, 3, 0, 4) and out.presence_NBF.shape == (NUM_LAYERS, 3, 0)


def test_gradients_reach_every_input_through_the_last_box(decoder: SpatialDecoder) -> None:
    """The box is refined without detaching, so the last one alone moves the queries of every layer and each cell."""
    inputs = make_inputs()
    inputs = inputs._replace(
        bridge_NBKE=inputs.bridge_NBKE.requires_grad_(), cells_BFSC=inputs.cells_BFSC.requires_grad_()
    )
    decoder(*inputs).boxes_cxcywh_NBF4[-1].square().sum().backward()
    assert inputs.bridge_NBKE.grad is not None and inputs.cells_BFSC.grad is not None
    assert inputs.bridge_NBKE.grad.abs().amax(dim=-1).gt(0).all()
    assert inputs.cells_BFSC.grad.abs().amax(dim=-1).gt(0).all()


def test_gradient_through_the_boxes_equals_finite_differences(decoder: SpatialDecoder) -> None:
    """Pathwise RFT rests on it: d box / d bridge, in float64."""
    decoder = decoder.double()
    inputs = Inputs(*(t.double() if t.is_floating_point() else t for t in make_inputs(rows=1, frames=1, cells=3)))
    direction = torch.randn(inputs.bridge_NBKE.shape, generator=torch.Generator().manual_seed(3)).double()

    def value(step: float) -> Tensor:
        return decoder(*inputs._replace(bridge_NBKE=inputs.bridge_NBKE + step * direction)).boxes_cxcywh_NBF4[-1].sum()

    bridge = inputs.bridge_NBKE.clone().requires_grad_()
    decoder(*inputs._replace(bridge_NBKE=bridge)).boxes_cxcywh_NBF4[-1].sum().backward()
    assert bridge.grad is not None
    slope = (value(1e-3) - value(-1e-3)) / 2e-3
    torch.testing.assert_close((bridge.grad * direction).sum(), slope, rtol=1e-3, atol=1e-6)
