"""Sine encodings of continuous coordinates, as in DETR (2005.12872) and conditional DETR (2108.06152)."""

import math

import torch
from torch import Tensor


def sine_encoding(values: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """[...] -> [..., width]: sines and cosines of the value at width / 2 geometric frequencies."""
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=values.device) / half)
    angles = values.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def point_encoding(points_xy: Tensor, width: int) -> Tensor:
    """[..., 2] in [0, 1] -> [..., width]; the first half encodes x, the second y."""
    scaled = points_xy * 2 * math.pi * 8
    return torch.cat([sine_encoding(scaled[..., i], width // 2, max_period=64.0) for i in (0, 1)], dim=-1)
