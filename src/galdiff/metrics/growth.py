r"""Curves of growth: light and area within circles or ellipses about any point, for a batch at once.

A pixel is a square of even brightness. It is cut into subpixels, whose light is put into bins of radius, split
between the nearest two; the cumulative sum is the curve, and every share of it is linear interpolation. Every pixel's
light counts exactly once, and radii agree with those of exact overlaps to some thousandths of a pixel. An ellipse's
radius is its semi-major axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

__all__ = ["Growth", "elliptical_radius"]

_STEP = 0.25  # pixels between two radii
_FINE = 128  # subpixels along a side that a stamp should have; a pixel has two or more


def elliptical_radius(
    y: Tensor, x: Tensor, center: Tensor, ellipticity: Tensor | None = None, orientation: Tensor | None = None
) -> Tensor:
    """Return the semi-major axis of the ellipse through every point of a grid, ``(sample, y, x)``.

    Parameters
    ----------
    y, x : Tensor
        Coordinates of the grid, ``(y,)`` and ``(x,)``.
    center : Tensor
        y and x of the centers, ``(sample, 2)``.
    ellipticity : Tensor, optional
        1 - b / a, ``(sample,)``; circles without it.
    orientation : Tensor, optional
        Of the major axis from x to y [rad], ``(sample,)``.
    """
    dy, dx = (y - center[:, :1])[:, :, None], (x - center[:, 1:])[:, None, :]
    if ellipticity is None or orientation is None:
        return (dy.square() + dx.square()).sqrt_()
    cos, sin = orientation.cos()[:, None, None], orientation.sin()[:, None, None]
    elongation = 1 / (1 - ellipticity)[:, None, None]
    along = dx * cos + dy * sin
    across = dy * (cos * elongation) - dx * (sin * elongation)
    return along.square_().add_(across.square_()).sqrt_()


@dataclass(frozen=True)
class Growth:
    """Light and area within a radius.

    Attributes
    ----------
    light, area : Tensor
        Cumulative, float64 ``(sample, radius)``, in steps of a quarter of a pixel from 0.
    """

    light: Tensor
    area: Tensor

    @classmethod
    def about(
        cls,
        light: Tensor,
        valid: Tensor,
        center: Tensor,
        ellipticity: Tensor | None = None,
        orientation: Tensor | None = None,
    ) -> Growth:
        """Measure the curves about centers, to the diagonal of the stamp.

        Parameters
        ----------
        light : Tensor
            float64 ``(sample, y, x)``, 0 where not valid.
        valid : Tensor
            Pixels whose area counts, bool ``(sample, y, x)``.
        center, ellipticity, orientation : Tensor
            As `elliptical_radius` takes them.
        """
        height, width = light.shape[1:]
        center = center.float() / _STEP
        if ellipticity is not None and orientation is not None:
            ellipticity, orientation = ellipticity.float(), orientation.float()
        y, x = (torch.arange(s, dtype=center.dtype, device=center.device) for s in (height, width))
        cuts = max(2, -(-_FINE // max(height, width)))
        last = int((height**2 + width**2) ** 0.5 / _STEP) + 1
        # Light and area are put into the same bins: as the parts of one complex number.
        pixels = torch.complex(light.float(), valid.float()).flatten(1)
        whole, upper = (pixels.new_zeros(len(pixels), last + n) for n in (1, 2))
        # In the same memory for all subpixels: to get as much anew takes longer than to fill it.
        index, shared = torch.empty_like(pixels, dtype=torch.long), torch.empty_like(pixels)
        parts = [(k + 0.5) / cuts - 0.5 for k in range(cuts)]
        for part_y, part_x in product(parts, parts):
            # What lies beyond the last radius falls into a bin that is dropped.
            radius = elliptical_radius((y + part_y) / _STEP, (x + part_x) / _STEP, center, ellipticity, orientation)
            at = radius.clamp_max_(last).flatten(1)
            index.copy_(at)
            whole.scatter_add_(1, index, pixels)
            # What of it belongs to the next bin.
            upper[:, 1:].scatter_add_(1, index, torch.mul(pixels, at.frac_(), out=shared))
        # A bin has few subpixels; the sum over bins is the long one. A subpixel on a radius is half within it.
        curve = (whole.to(torch.complex128) - upper.to(torch.complex128).diff(dim=1)) / cuts**2
        curve = (curve.cumsum(dim=1) - curve / 2)[:, :last]
        return cls(curve.real.contiguous(), curve.imag.contiguous())

    def within(self, radius: Tensor) -> Tensor:
        """Return the light within a radius, ``(sample,)``; all of it beyond the stamp."""
        return self._at(self.light, radius)

    def measured(self, radius: Tensor) -> Tensor:
        """Return the area within a radius that is neither masked nor outside the stamp, ``(sample,)``."""
        return self._at(self.area, radius)

    def containing(self, share: float, radius: Tensor) -> Tensor:
        """Return the radius that holds a share of the light within another one; NaN where there is none."""
        asked = share * self.within(radius)
        reached = self.light >= asked[:, None]
        found = reached.any(dim=1) & (asked > 0)
        return torch.where(found, self._crossing(self.light - asked[:, None], reached), torch.nan)

    def petrosian(self, eta: float = 0.2) -> Tensor:
        r"""Return the Petrosian radius; NaN where it is not reached within the stamp.

        It is the least radius of a pixel or more at which the mean brightness in an annulus a pixel wide is ``eta``
        times that within it (Petrosian 1976; Lotz et al. 2004, eq. 4). Masked pixels and such as lie outside the stamp
        count in neither mean.
        """
        half = round(0.5 / _STEP)
        first = 2 * half
        ring = (c[:, first + half :] - c[:, first - half : -2 * half] for c in (self.light, self.area))
        ring_light, ring_area = ring
        inner_light, inner_area = (c[:, first:-half] for c in (self.light, self.area))
        # Multiplied out, and so free of divisions: an annulus that is outside the stamp decides nothing.
        excess = ring_light * inner_area - eta * inner_light * ring_area
        reached = (excess < 0) & (ring_area > 0)
        found = reached.any(dim=1) & ~reached[:, 0]
        return torch.where(found, first * _STEP + self._crossing(excess, reached), torch.nan)

    @staticmethod
    def _at(curve: Tensor, radius: Tensor) -> Tensor:
        at = (radius / _STEP).clamp(0, curve.shape[1] - 1)[:, None]
        below = at.long().clamp_max(curve.shape[1] - 2)
        return torch.lerp(curve.gather(1, below), curve.gather(1, below + 1), at - below)[:, 0]

    @staticmethod
    def _crossing(values: Tensor, reached: Tensor) -> Tensor:
        """Where values pass zero, linearly, before the first radius at which it is reached."""
        after = reached.to(torch.int8).argmax(dim=1, keepdim=True).clamp_min(1)
        low, high = values.gather(1, after - 1), values.gather(1, after)
        step = torch.where(high == low, 0.0, low / (low - high)).clamp(0, 1)
        return ((after - 1 + step) * _STEP)[:, 0]
