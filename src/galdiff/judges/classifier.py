"""A convolutional judge: trained on real cutouts, read on generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.judges.body import Body, train
from galdiff.nn.dihedral import dihedral, is_reflection
from galdiff.randomness import integers
from galdiff.schema.conditions import Class

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """Small residual network for cutouts of any size: one label a column, or one class of several.

    Parameters
    ----------
    bands : int
        Bands of the images.
    outputs : int
        Columns or classes.
    width : int
        Channels of the first level.
    exclusive : bool
        One class of several (softmax) instead of independent columns (sigmoid).
    """

    def __init__(self, bands: int, outputs: int, *, width: int = 32, exclusive: bool = True) -> None:
        super().__init__()
        self.exclusive = exclusive
        self.body = Body(bands, width=width)
        self.head = nn.Linear(self.body.outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, outputs)`` of stretched images."""
        return self.head(self.body(x))

    def fit(
        self,
        images: Any,
        targets: Any,
        *,
        seed: int = 0,
        seen: int = 16_000,
        batch: int = 64,
        learning_rate: float = 2e-3,
        field: Class | None = None,
    ) -> Classifier:
        """Train, with turned and reflected images.

        Parameters
        ----------
        images : array_like
            Stretched images ``(n, band, y, x)``, square.
        targets : array_like
            Classes ``(n,)``, or probabilities ``(n, outputs)`` with NaN where unknown.
        seed : int
            Of weights, order and augmentation.
        seen : int
            Images to train on.
        batch, learning_rate
            Of AdamW, with a cosine decay.
        field : Class, optional
            A class field whose mirror classes swap under reflections.

        Returns
        -------
        Classifier
            Self, in evaluation mode.
        """
        x, y = torch.as_tensor(np.asarray(images)), torch.as_tensor(np.asarray(targets))
        mirrored = field.mirrored() if field is not None else None

        def loss(rows: Tensor, positions: Tensor) -> Tensor:
            element = integers(seed, "judge", positions, 8)
            target = y[rows]
            if mirrored is not None:
                target = torch.where(is_reflection(element), mirrored[target], target)
            logits = self(dihedral(x[rows].float(), element))
            if self.exclusive:
                return functional.cross_entropy(logits, target)
            known = target.isfinite()
            return functional.binary_cross_entropy_with_logits(logits[known], target[known].float())

        train(self, len(x), loss, seed=seed, seen=seen, batch=batch, learning_rate=learning_rate)
        return self

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        """Return probabilities ``(n, outputs)``."""
        x = torch.as_tensor(np.asarray(images))
        logits = torch.cat([self(part.float()) for part in x.split(256)])
        return (logits.softmax(dim=1) if self.exclusive else logits.sigmoid()).numpy()
