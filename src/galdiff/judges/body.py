"""What every judge is made of: one small residual network, and one way to train it.

Weights, order and augmentation are functions of the seed alone: the same images give the same judge, bit by bit, on the
same machine with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.randomness import permutation

__all__ = ["Body", "train"]

Loss = Callable[[Tensor, Tensor], Tensor]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0, self.norm0 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs)
        self.conv1, self.norm1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.norm0(self.conv0(x)))
        return functional.silu(self.norm1(self.conv1(y)) + self.skip(x))


class Body(nn.Module):
    """Small residual network for cutouts of any size, pooled by mean and maximum.

    Parameters
    ----------
    bands : int
        Bands of the images.
    width : int
        Channels of the first level.

    Attributes
    ----------
    outputs : int
        Pooled channels, ``8 * width``.
    """

    def __init__(self, bands: int, *, width: int = 32) -> None:
        super().__init__()
        self.outputs = 8 * width
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
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, outputs)`` of stretched images ``(n, band, y, x)``."""
        y = self.layers(x)
        return torch.cat([y.mean(dim=(2, 3)), y.amax(dim=(2, 3))], dim=1)


def train(
    judge: nn.Module, n: int, loss: Loss, *, seed: int, seen: int, batch: int = 64, learning_rate: float = 2e-3
) -> None:
    """Train a judge from the weights of a seed, by AdamW with a cosine decay; it is left in evaluation mode.

    Parameters
    ----------
    judge : Module
        What to train.
    n : int
        Number of training images.
    loss : callable
        ``loss(rows, positions)``: rows of the training images int64 ``(batch,)``, and the global positions that
        everything random is a function of.
    seed : int
        Of weights and order.
    seen : int
        Images to train on.
    batch : int
        Images a step.
    learning_rate : float
        The largest.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in judge.modules():
            if isinstance(layer, nn.Conv2d | nn.GroupNorm | nn.Linear):
                layer.reset_parameters()
    steps = max(2, seen // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    order = np.concatenate([permutation(seed, epoch, n) for epoch in range(seen // n + 1)])
    judge.train()
    for step in range(steps):
        positions = torch.arange(step * batch, (step + 1) * batch) % len(order)
        value = loss(torch.from_numpy(order)[positions], positions)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    judge.eval()
