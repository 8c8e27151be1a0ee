"""Resizing as others resize before they compute a distance: each kernel has its own name, since each gives its own FID.

All take 8-bit values as float32 ``(n, band, y, x)`` and return the same, not rounded again.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

__all__ = ["RESIZERS", "resize_antialiased", "resize_clean", "resize_tf"]


def resize_tf(x: Tensor, side: int) -> Tensor:
    """Interpolate as TensorFlow 1: bilinear, pixel i of the output at ``i * input / output`` of the input.

    There is no half-pixel shift and no smoothing, whatever the factor.
    """
    for dim in (3, 2):
        n = x.shape[dim]
        at = torch.arange(side, dtype=x.dtype, device=x.device) * torch.tensor(n / side, dtype=x.dtype)
        low = at.long()
        below, above = x.index_select(dim, low), x.index_select(dim, (low + 1).clamp_max(n - 1))
        share = at - low
        x = below + (above - below) * (share if dim == 3 else share[:, None])
    return x


def resize_antialiased(x: Tensor, side: int) -> Tensor:
    """Interpolate as torchmetrics from 1.8 on: bilinear with half-pixel centers, smoothed where it shrinks."""
    return functional.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)


def resize_clean(x: Tensor, side: int) -> Tensor:
    """Interpolate as clean-fid (Parmar et al. 2022, arXiv:2104.11222): Pillow's bicubic in floating point, clipped."""
    planes = x.reshape(-1, *x.shape[2:]).cpu().numpy().astype(np.float32)
    resized = [np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)) for plane in planes]
    stacked = torch.from_numpy(np.stack(resized).clip(0, 255))
    return stacked.reshape(*x.shape[:2], side, side).to(x.device)


RESIZERS = {"tf": resize_tf, "torchmetrics-aa": resize_antialiased, "clean": resize_clean}
"""Resizers by the names of their protocols."""
