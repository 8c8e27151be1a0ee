"""Pairs of views of an image: both turned, reflected and shifted, and of two pairs in three one spoiled.

What spoils is what generated images suffer from, by an amount that is known: blur, noise, a shift of color, a gain.
Everything is a function of the seed and of the global positions of the samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from galdiff.randomness import integers, normal, uniform

__all__ = ["SPOILS", "grain", "views"]

SPOILS = ("blur", "noise", "color", "gain")
"""What the second view may have suffered, in the order of the amounts."""
SHIFT = 2  # [pixel], in either direction
BLUR = 1.5  # largest width of the Gaussian [pixel]
NOISE = 2.0  # largest noise that is added, in units of the images' own
CONTRAST = 0.2  # largest change of a band above its darkest pixel


def grain(images: Tensor) -> float:
    """Return the noise of typical sky: from differences of neighboring pixels, by their median absolute deviation."""
    steps = images[..., 1:].float() - images[..., :-1].float()
    # A hundredth of the networks' range, where there is none.
    return max(1.4826 * float(steps.abs().flatten().median()) / 2**0.5, 0.01)


def views(images: Tensor, *, seed: int, positions: Tensor, noise: float) -> tuple[Tensor, Tensor, Tensor]:
    """Make two views of every image.

    Parameters
    ----------
    images : Tensor
        Stretched images ``(n, band, side, side)``.
    seed : int
        Seed of the judge.
    positions : Tensor
        Global positions of the samples, int64 ``(n,)``.
    noise : float
        Of the images (`grain`).

    Returns
    -------
    views : Tensor
        ``(2n, band, side, side)``: the first views, then the second ones. They are not turned yet.
    elements : Tensor
        The symmetry to turn each by (`galdiff.nn.dihedral.dihedral`), int64 ``(2n,)``.
    amounts : Tensor
        How much the second view suffered of what, ``(n, spoils)``; zero for a pair that is not spoiled.
    """
    elements = integers(seed, "judge", positions, 8, (2,)).T.flatten()
    shift = (integers(seed, "shift", positions[:1], 2 * SHIFT + 1, (2, 2))[0] - SHIFT).tolist()
    first, second = (images.roll(by, dims=(2, 3)) for by in shift)
    kind = integers(seed, "spoil", positions, len(SPOILS) * 3 // 2)
    u = uniform(seed, "amount", positions)
    tint = torch.linspace(1, -1, images.shape[1])
    amounts = torch.zeros(len(images), len(SPOILS))
    for k, name in enumerate(SPOILS):
        rows = (kind == k).nonzero().flatten()
        x, amount = second[rows], u[rows]
        if name == "blur":
            x = _blur(x, BLUR * amount)
        elif name == "noise":
            white = normal(seed, "noise", positions[rows], x.shape[1:])
            x = x + noise * NOISE * amount[:, None, None, None] * white
        else:
            amount = 2 * amount - 1
            factor = 1 + CONTRAST * amount[:, None] * (tint if name == "color" else torch.ones_like(tint))
            dark = x.amin(dim=(2, 3), keepdim=True)
            x = dark + factor[..., None, None] * (x - dark)
        second, amounts[rows, k] = second.index_copy(0, rows, x), amount
    return torch.cat([first, second]), elements, amounts


def _blur(x: Tensor, width: Tensor) -> Tensor:
    """Convolve every image with its own Gaussian."""
    n, c, h, w = x.shape
    if not n:
        return x
    reach = round(3 * BLUR)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)[:, None]
    padded = functional.pad(x.reshape(1, n * c, h, w), (reach,) * 4, mode="replicate")
    down = functional.conv2d(padded, kernel[..., None], groups=n * c)
    return functional.conv2d(down, kernel[:, :, None], groups=n * c).reshape(x.shape)
