"""The eight symmetries of the square on image tensors.

Element ``g`` in 0…7 is a reflection along x where ``g >= 4``, then ``g % 4`` quarter turns; reflections change the
handedness of spirals, turns do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dihedral", "is_reflection"]


def is_reflection(element: Tensor) -> Tensor:
    """Return True where a group element changes handedness."""
    return element >= 4


def dihedral(x: Tensor, element: Tensor) -> Tensor:
    """Apply to every sample its own symmetry.

    Parameters
    ----------
    x : Tensor
        Square images ``(n, c, s, s)``.
    element : Tensor
        int64 ``(n,)`` in 0…7.

    Returns
    -------
    Tensor
        The turned images, same shape.
    """
    g = element.view(-1, 1, 1, 1)
    x = torch.where(g >= 4, x.flip(3), x)
    x = torch.where(g % 4 >= 2, x.flip(2, 3), x)
    return torch.where(g % 2 == 1, x.transpose(2, 3).flip(2), x)
