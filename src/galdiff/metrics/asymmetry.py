r"""Asymmetry under half a turn, at the center that minimizes it.

.. math:: A = \frac{\sum |I - I_{180}| - a \langle |s - s_{180}| \rangle}{\sum |I|}, \qquad
          A_\mathrm{rms}^2 = \frac{\sum (I - I_{180})^2 - 2 a \sigma^2}{\sum I^2 - a \sigma^2}

in a circle of area a, with the sky's own asymmetry taken off (Conselice 2003, ApJS 147, 1; Lotz et al. 2004, AJ 128,
163, eq. 10; Sazonova et al. 2024, "RMS asymmetry", eq. 27). The turned image is interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from galdiff.metrics.growth import elliptical_radius
from galdiff.metrics.source import Sources
from galdiff.metrics.windows import windows

__all__ = ["Asymmetry", "half_turn"]

_STEPS = (2.0, 1.0, 1.0, 0.5, 0.25, 0.1, 0.04)  # of the search [pixel]
_WAYS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))  # of a step along y and x


def half_turn(image: Tensor, center: Tensor) -> Tensor:
    """Turn images by 180 degrees about points, 0 where nothing is, ``(sample, y, x)``; centers are y, x."""
    middle = (center.new_tensor(image.shape[1:]) - 1) / 2
    return _HalfTurn(image, (center - middle).abs().amax())(center)


class _HalfTurn:
    """Images turned about any points whose coordinates are no further than ``reach`` from the stamp's middle."""

    def __init__(self, image: Tensor, reach: Tensor) -> None:
        self.shape = (image.shape[1], image.shape[2])
        # Beyond a stamp's own size there is nothing but zeros.
        self.margin = int((2 * reach).ceil().clamp_max(max(self.shape) + 2 * max(_STEPS))) + 1
        self.flipped = functional.pad(image.flip(1, 2), (self.margin,) * 4)

    def __call__(self, center: Tensor, around: int = 0) -> Tensor:
        """Turn about centers, with so many pixels more on every side."""
        near, y, x = self._near(center, around)
        near = torch.lerp(near[:, :-1], near[:, 1:], y)
        return torch.lerp(near[..., :-1], near[..., 1:], x)

    def at_steps(self, center: Tensor, step: float) -> Iterator[Tensor]:
        """Turn about centers and about those less than half a pixel from them, one image for each of the ways."""
        near, y, x = self._near(center, 1)
        # What moves along one axis is interpolated along the other one once.
        by_y, by_x = _moved(near, 2, x, 0.0), _moved(near, 1, y, 0.0)
        for move in (0.0, -2 * step, 2 * step):
            yield _moved(by_y, 1, y, move)
        for move in (-2 * step, 2 * step):
            yield _moved(by_x, 2, x, move)

    def _near(self, center: Tensor, around: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pixels that those of the turned images lie between, and how far on from them along y and x."""
        height, width = (s + 2 * around for s in self.shape)
        # A turned image is the flipped one, moved; every pixel of it lies between two by two of the flipped one.
        begin = center.new_tensor(self.shape) - 1 - 2 * center
        whole = begin.floor()
        last = 2 * (self.margin - around) - 1
        rows, columns = (whole.long() + self.margin - around).clamp(0, last).unbind(dim=1)
        near = windows(self.flipped, rows, columns, (height + 1, width + 1))
        y, x = (begin - whole).to(near.dtype)[:, :, None, None].unbind(dim=1)
        return near, y, x


def _moved(near: Tensor, axis: int, part: Tensor, move: float) -> Tensor:
    """Interpolate along an axis that has a pixel more at its begin and two at its end, moved by less than a pixel."""
    first, n = 0 if move < 0 else 1, near.shape[axis] - 3
    place = part + 1 + move
    weights = [(1 - (place - k).abs()).clamp_min(0) for k in range(first, first + 3)]
    moved = near.narrow(axis, first, n) * weights[0]
    for k, weight in enumerate(weights[1:], first + 1):
        moved.addcmul_(near.narrow(axis, k, n), weight)
    return moved


@dataclass(frozen=True)
class Asymmetry:
    """Asymmetry of light in circles as a function of their centers.

    Attributes
    ----------
    light : Tensor
        float64 ``(sample, y, x)``, 0 where masked.
    masked : Tensor, optional
        Where it is masked, as 1 and 0; None if nothing is.
    radius : Tensor
        Of the circles, ``(sample,)`` [pixel].
    sky : Tensor
        Mean absolute difference of the background and itself turned about the middle of the stamp, ``(sample,)``.
    noise : Tensor
        Standard deviation of the background, ``(sample,)``.
    """

    light: Tensor
    masked: Tensor | None
    radius: Tensor
    sky: Tensor
    noise: Tensor

    @classmethod
    def of(cls, sources: Sources, radius: Tensor) -> Asymmetry:
        """Prepare the measurement."""
        masked = sources.masked.to(sources.light.dtype) if bool(sources.masked.any()) else None
        pair = sources.background & sources.background.flip(1, 2)
        gap = (sources.light - sources.light.flip(1, 2)).abs()
        sky = torch.where(pair, gap, 0.0).sum(dim=(1, 2)) / pair.sum(dim=(1, 2)).clamp_min(1)
        return cls(sources.light, masked, radius, sky, sources.noise)

    def _weight(self, center: Tensor) -> Tensor:
        """Return the share of every pixel that counts."""
        height, width = self.light.shape[1:]
        y, x = (torch.arange(s, dtype=center.dtype, device=center.device) for s in (height, width))
        weight = (self.radius[:, None, None] + 0.5 - elliptical_radius(y, x, center)).clamp_(0, 1)
        if self.masked is not None:
            # A pixel counts if neither it nor its partner is masked; what has no partner is compared with nothing.
            weight *= (self.masked + half_turn(self.masked, center)) < 0.5
        return weight

    def __call__(self, center: Tensor) -> tuple[Tensor, Tensor]:
        """Return A and the square of the rms asymmetry about centers ``(sample, 2)``; noise can make both negative."""
        weight, gap = self._weight(center), half_turn(self.light, center) - self.light
        area, noise = weight.sum(dim=(1, 2)), self.noise.square()
        maps = (gap.abs(), self.light.abs(), gap.square(), self.light.square())
        gaps, total, gaps2, total2 = (_sum(weight, values) for values in maps)
        return (gaps - area * self.sky) / total, (gaps2 - 2 * area * noise) / (total2 - area * noise)

    def find_center(self, start: Tensor, reach: Tensor) -> Tensor:
        """Search the center of least asymmetry by parabolas along both axes, from two pixels down to 1/25.

        Meanwhile the circle stays about the first center, so that only the difference is compared.

        Parameters
        ----------
        start : Tensor
            First centers, y and x, ``(sample, 2)``.
        reach : Tensor
            How far from them the center may be, ``(sample,)`` [pixel].

        Returns
        -------
        torch.Tensor
            ``(sample, 2)``.
        """
        light, weight = self.light.float(), self._weight(start).float()
        middle = (start.new_tensor(light.shape[1:]) - 1) / 2
        turned = _HalfTurn(light, ((start - middle).abs().amax(dim=1) + reach).amax() + max(_STEPS))

        def differences(centers: Tensor, step: float) -> Tensor:
            """Return them at centers and a step from them."""
            if step < 0.5:
                parts = turned.at_steps(centers, step)
            else:
                # Such steps move the turned image by whole pixels: it is interpolated once.
                by = round(2 * step)
                wide = turned(centers, by)
                parts = (wide[:, by - by * y :, by - by * x :][:, : light.shape[1], : light.shape[2]] for y, x in _WAYS)
            return torch.stack([_sum(weight, (part - light).abs_()) for part in parts])

        center, best = start, start
        least = torch.full_like(reach, torch.inf)
        for step in _STEPS:
            values = differences(center, step)
            lowest, which = values.min(dim=0)
            better = lowest < least
            least = torch.where(better, lowest, least)
            best = torch.where(better[:, None], center + step * center.new_tensor(_WAYS)[which], best)
            # The vertex of a parabola along either axis, or a step downhill where there is none.
            middle, rise = values[0][:, None], (values[1::2] - values[2::2]).T / 2
            bend = (values[1::2] + values[2::2]).T - 2 * middle
            move = torch.where(bend > 0, -rise / bend, -rise.sign()).nan_to_num()
            center = center + step * move.clamp(-1.5, 1.5)
            gone = center - start
            center = start + gone * (reach / gone.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]
        last = _sum(weight, turned(center).sub_(light).abs_())
        return torch.where((last < least)[:, None], center, best)


def _sum(weight: Tensor, values: Tensor) -> Tensor:
    """Return weighted sums over the pixels, ``(sample,)``."""
    return torch.linalg.vecdot(weight.flatten(1), values.flatten(1))
