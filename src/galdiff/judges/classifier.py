"""A convolutional judge: trained on real cutouts, read on generated ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.dihedral import dihedral, is_reflection
from galdiff.randomness import integers, permutation
from galdiff.schema.conditions import Class

__all__ = ["Classifier", "auc"]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs)
        self.conv1, self.norm1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm0(self.conv0(x)))
        return functional.silu(self.norm1(self.conv1(y)) + self.skip(x))


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
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            _Block(4 * bands, width),
            nn.AvgPool2d(2),
            _Block(width, 2 * width),
            nn.AvgPool2d(2),
            _Block(2 * width, 2 * width),
            nn.AvgPool2d(2),
            _Block(2 * width, 4 * width),
        )
        self.head = nn.Linear(8 * width, outputs)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(n, outputs)`` of stretched images."""
        y = self.layers(x)
        return self.head(torch.cat([y.mean(dim=(2, 3)), y.amax(dim=(2, 3))], dim=1))

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
        torch.manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.GroupNorm | nn.Linear):
                layer.reset_parameters()
        optimizer = torch.optim.AdamW(self.parameters(), learning_rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(2, seen // batch))
        order = np.concatenate([permutation(seed, epoch, len(x)) for epoch in range(seen // len(x) + 1)])
        mirrored = field.mirrored() if field is not None else None
        self.train()
        for step in range(max(2, seen // batch)):
            positions = torch.arange(step * batch, (step + 1) * batch) % len(order)
            rows = torch.from_numpy(order)[positions]
            element = integers(seed, "judge", positions, 8)
            target = y[rows]
            if mirrored is not None:
                target = torch.where(is_reflection(element), mirrored[target], target)
            logits = self(dihedral(x[rows].float(), element))
            if self.exclusive:
                loss = functional.cross_entropy(logits, target)
            else:
                known = target.isfinite()
                loss = functional.binary_cross_entropy_with_logits(logits[known], target[known].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return self.eval()

    @torch.no_grad()
    def predict(self, images: Any) -> np.ndarray:
        """Return probabilities ``(n, outputs)``."""
        x = torch.as_tensor(np.asarray(images))
        logits = torch.cat([self(part.float()) for part in x.split(256)])
        return (logits.softmax(dim=1) if self.exclusive else logits.sigmoid()).numpy()


def auc(scores: Any, labels: Any) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Parameters
    ----------
    scores, labels : array_like
        ``(n,)``; labels are true for positives.

    Returns
    -------
    float
        NaN where one of the two kinds is absent.
    """
    s, positive = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    negatives = np.sort(s[~positive])
    below = np.searchsorted(negatives, s[positive], side="left")
    ties = np.searchsorted(negatives, s[positive], side="right") - below
    return float((below + ties / 2).sum() / (n_positive * n_negative))
