"""Every supervised loss by hand; what a mask leaves out cannot be felt."""

import math
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn.functional import logsigmoid

from configs.model import LossConfig
from data.geometry import box_cxcywh_to_xyxy
from model.criterion import weigh
from model.losses import (
    alignment_loss,
    box_giou_loss,
    box_l1_loss,
    contrast_loss,
    masked_mean,
    presence_loss,
    text_loss,
)

LOWEST = torch.finfo(torch.float32).min


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_masked_mean_by_hand() -> None:
    """(1 + 3) / 2; what is masked may be NaN."""
    values = torch.tensor([1.0, float("nan"), 3.0])
    assert masked_mean(values, torch.tensor([True, False, True])) == 2.0


def test_text_loss_by_hand() -> None:
    """Tokens of probability 1/2 and 1/8 are scored: (log 2 + log 8) / 2 = 2 log 2."""
    logps_BL = torch.tensor([[0.5, 0.9], [0.1, 0.125]]).log()
    mask_BL = torch.tensor([[True, False], [False, True]])
    torch.testing.assert_close(text_loss(logps_BL, mask_BL), torch.tensor(2 * math.log(2)))


def test_box_l1_by_hand() -> None:
    """Layer 0 is off by (.1, 0, .2, 0), sum .3, layer 1 by (.1, .1, .1, .4), sum .7: mean over layers .5.

    The second frame has no true box.
    """
    target_BF4 = torch.tensor([[[0.5, 0.5, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]]])
    pred_NBF4 = torch.tensor(
        [[[[0.6, 0.5, 0.4, 0.2], [0.9, 0.9, 0.9, 0.9]]], [[[0.4, 0.6, 0.3, 0.6], [0.9, 0.9, 0.9, 0.9]]]]
    )
    mask_BF = torch.tensor([[True, False]])
    torch.testing.assert_close(box_l1_loss(pred_NBF4, target_BF4, mask_BF), torch.tensor(0.5))


def test_box_giou_by_hand() -> None:
    """cxcywh (.2, .1, .4, .2) is [0, 0, .4, .2], (.4, .2, .4, .2) is [.2, .1, .6, .3]: GIoU 1/7 - 2/9
    (test_data_geometry.py). Layer 1 is exact, loss 0: mean (1 - 1/7 + 2/9) / 2."""
    target_BF4 = torch.tensor([[[0.4, 0.2, 0.4, 0.2]]])
    pred_NBF4 = torch.stack([torch.tensor([[[0.2, 0.1, 0.4, 0.2]]]), target_BF4])
    loss = box_giou_loss(pred_NBF4, target_BF4, ones(1, 1))
    torch.testing.assert_close(loss, torch.tensor((1 - 1 / 7 + 2 / 9) / 2))


def test_box_losses_match_torchvision() -> None:
    """Means over two layers and the frames that the mask keeps, against PyTorch's and torchvision's own."""
    pred_NBF4 = rand(2, 3, 4, 4, seed=1) * 0.4 + 0.3
    target_BF4 = rand(3, 4, 4, seed=2) * 0.4 + 0.3
    mask_BF = rand(3, 4, seed=3) > 0.4
    kept_pred = pred_NBF4[:, mask_BF].reshape(-1, 4)
    kept_target = target_BF4[mask_BF].repeat(2, 1)
    l1 = torch.nn.functional.l1_loss(kept_pred, kept_target, reduction="sum") / len(kept_pred)
    torch.testing.assert_close(box_l1_loss(pred_NBF4, target_BF4, mask_BF), l1)
    giou = torchvision.ops.generalized_box_iou_loss(
        box_cxcywh_to_xyxy(kept_pred), box_cxcywh_to_xyxy(kept_target), reduction="mean"
    )
    torch.testing.assert_close(box_giou_loss(pred_NBF4, target_BF4, mask_BF), giou)


def test_presence_loss_by_hand() -> None:
    """-log sigmoid(log 3) = -log(3/4) where the target is 1, -log(1 - 3/4) where it is 0, none in the masked frame."""
    logits_NBF = torch.full((1, 1, 3), math.log(3))
    loss = presence_loss(logits_NBF, torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[True, True, False]]))
    torch.testing.assert_close(loss, torch.tensor((math.log(4 / 3) + math.log(4)) / 2))


def test_presence_loss_averages_layers() -> None:
    """Layers of logit 0 and log 3 with target 1: (log 2 + log 4/3) / 2."""
    logits_NBF = torch.tensor([[[0.0]], [[math.log(3)]]])
    loss = presence_loss(logits_NBF, torch.ones(1, 1), ones(1, 1))
    torch.testing.assert_close(loss, torch.tensor((math.log(2) + math.log(4 / 3)) / 2))


def test_alignment_loss_by_hand() -> None:
    """A patch half inside: -(.5 log p + .5 log (1 - p)) with p = 3/4; one fully inside with p = 1/2: log 2."""
    scores_BT = torch.tensor([[math.log(3), 0.0]])
    loss = alignment_loss(scores_BT, torch.tensor([[0.5, 1.0]]), ones(1, 2))
    half = -0.5 * (math.log(3 / 4) + math.log(1 / 4))
    torch.testing.assert_close(loss, torch.tensor((half + math.log(2)) / 2))


def test_contrast_loss_by_hand() -> None:
    """Scores log 1, log 2, log 3, log 4 have softmax masses .1, .2, .3, .4; the positives 1 and 3 hold .2 + .4 = .6.

    A patch counts as positive when more than half of it is inside.
    """
    scores_BT = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).log()
    inside_BT = torch.tensor([[0.0, 1.0, 0.5, 0.75]])
    torch.testing.assert_close(contrast_loss(scores_BT, inside_BT, ones(1, 4)), torch.tensor(-math.log(0.6)))


def test_contrast_loss_leaves_out_rows_with_nothing_to_contrast() -> None:
    """Row 0 has masses 1/3 and 2/3, positive the latter. Rows all positive, all negative or all masked do not count
    and get no gradient."""
    scores_BT = torch.tensor([[1.0, 2.0]]).log().repeat(4, 1).requires_grad_()
    inside_BT = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    mask_BT = torch.tensor([[True, True], [True, True], [True, True], [False, False]])
    loss = contrast_loss(scores_BT, inside_BT, mask_BT)
    torch.testing.assert_close(loss, torch.tensor(-math.log(2 / 3)))
    loss.backward()
    assert scores_BT.grad is not None and scores_BT.grad.isfinite().all()
    assert scores_BT.grad[0].ne(0).all() and scores_BT.grad[1:].eq(0).all()


def test_contrast_gradient_by_hand() -> None:
    """d/ds of -log(mass of the positives) is softmax - softmax among the positives: (1/3, 2/3) - (0, 1)."""
    scores_BT = torch.tensor([[1.0, 2.0]]).log().requires_grad_()
    contrast_loss(scores_BT, torch.tensor([[0.0, 1.0]]), ones(1, 2)).backward()
    torch.testing.assert_close(scores_BT.grad, torch.tensor([[1 / 3, -1 / 3]]))


@pytest.mark.parametrize("loss_fn", [alignment_loss, contrast_loss])
def test_alignment_losses_ignore_padding(loss_fn: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """The model fills padding with the dtype's lowest value; whatever is in it, value and gradient stay the same."""
    scores_BT, inside_BT = rand(3, 5, seed=1), torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
    grads, losses = [], []
    for fill in (None, LOWEST, 1e4, 0.0):
        scores = scores_BT.clone().requires_grad_()
        padded, inside, mask = scores, inside_BT, ones(3, 5)
        if fill is not None:
            padded = torch.cat([scores, torch.full((3, 2), fill)], dim=1)
            inside = torch.cat([inside_BT, torch.ones(3, 2)], dim=1)
            mask = torch.cat([mask, ~ones(3, 2)], dim=1)
        loss = loss_fn(padded, inside, mask)
        loss.backward()
        losses.append(loss.detach())
        grads.append(scores.grad)
    for loss, grad in zip(losses[1:], grads[1:], strict=True):
        torch.testing.assert_close(loss, losses[0])
        torch.testing.assert_close(grad, grads[0])


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "text": lambda x, mask: text_loss(x.flatten(1), mask[:, :, None].expand(-1, -1, 4).flatten(1)),
    "box_l1": lambda x, mask: box_l1_loss(x[None], rand(*x.shape, seed=8), mask),
    "box_giou": lambda x, mask: box_giou_loss(x[None], rand(*x.shape, seed=8), mask),
    "presence": lambda x, mask: presence_loss(x[None, ..., 0], torch.ones(mask.shape), mask),
    "alignment": lambda x, mask: alignment_loss(x[..., 0], torch.ones(mask.shape), mask),
    "contrast": lambda x, mask: contrast_loss(x[..., 0], (rand(*mask.shape, seed=9) > 0.5).float(), mask),
}


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_mask_gives_zero_and_a_zero_gradient(name: str) -> None:
    """A batch without boxes must not break the backward, nor stay out of it."""
    x = rand(2, 3, 4).requires_grad_()
    loss = LOSSES[name](x, ~ones(2, 3))
    assert loss.item() == 0
    loss.backward()
    assert x.grad is not None and x.grad.eq(0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_no_frames(name: str) -> None:
    """A batch of questions alone has F = 0 columns."""
    x = rand(2, 0, 4).requires_grad_()
    assert LOSSES[name](x, ones(2, 0)).item() == 0


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "contrast"])
def test_masked_entries_count_for_nothing(name: str) -> None:
    """Changing what is masked changes nothing, and it gets no gradient; unmasked entries get one."""
    mask_BF = torch.tensor([[True, False, True], [False, False, True]])
    x = (rand(2, 3, 4) * 0.4 + 0.3).requires_grad_()
    loss = LOSSES[name](x, mask_BF)
    loss.backward()
    assert x.grad is not None
    assert x.grad[~mask_BF].eq(0).all()
    assert x.grad[mask_BF].ne(0).any(dim=-1).all()
    changed = torch.where(mask_BF[..., None], x.detach(), 0.9)
    torch.testing.assert_close(LOSSES[name](changed, mask_BF), loss.detach())


def test_extreme_logits_stay_finite() -> None:
    """-log sigmoid(-100) = 100 up to e^-100."""
    loss = presence_loss(torch.full((1, 1, 1), -100.0), torch.ones(1, 1), ones(1, 1))
    torch.testing.assert_close(loss, torch.tensor(100.0))
    torch.testing.assert_close(loss, -logsigmoid(torch.tensor(-100.0)))


def test_weigh_is_the_weighted_sum() -> None:
    """2 * 1 + 5 * 10 + 0 * 100 = 52; a term that is absent (no alignment) adds nothing."""
    terms = {"text": torch.tensor(1.0), "box_l1": torch.tensor(10.0), "presence": torch.tensor(100.0)}
    assert weigh(terms, LossConfig(text=2.0, box_l1=5.0, presence=0.0)).item() == 52.0
