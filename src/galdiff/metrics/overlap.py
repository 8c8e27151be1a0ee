r"""Exact overlap of pixels with annuli, circular or elliptical, around any center.

The area that a circle of radius r shares with the rectangle from its center to (x, y) is, for :math:`0 \le x, y \le r`,

.. math:: A(x, y) = x y \ \text{inside the circle}, \qquad P(x) + P(y) - \pi r^2 / 4 \ \text{outside}, \qquad
          P(x) = \int_0^x \sqrt{r^2 - t^2}\, dt,

and what it shares with a pixel is the second difference of A over the pixel's corners. Three ways to the same sums:

- around the stamp's center the weights of all images are the same: those of small stamps are kept, and a batch is a
  matrix product;
- around other centers, and in large stamps, summed by parts, the light in a circle is the sum over the corners of A
  times the second difference of the *image*. Outside the circle A is a sum of one-dimensional functions, so that all
  radii of an image together take three cumulative sums, and tables of P by row and by column: O(pixels), not
  O(pixels x radii);
- ellipses (and sums of squared weights around other centers) shear the plane until they are circles, pixels then being
  parallelograms; the area is the sum of the triangles from the center to their sides, clipped by the circle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["annulus_sums", "annulus_weights"]

_BATCH = 32  # tables that stay in the cache: twice as fast as batches of 256
_SHEARED_BATCH = 16
_KEPT = 2**21  # weights of one size and its edges: more are not kept, and summed in another way


def _quadrant(x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Area of the circle of radius r within [0, x] x [0, y], for x, y >= 0."""
    x, y = np.minimum(x, r), np.minimum(y, r)
    inside = x * x + y * y <= r * r
    px, py = (0.5 * (t * np.sqrt(r * r - t * t) + r * r * np.arcsin(t / r)) for t in (x, y))
    return np.where(inside, x * y, px + py - math.pi * r * r / 4)


def _circle_overlap(size: int, r: float) -> np.ndarray:
    """Area of every pixel of a centered stamp inside the circle, ``(size, size)``."""
    if r <= 0:
        return np.zeros((size, size))
    edges = np.arange(size + 1) - size / 2
    x, y = np.meshgrid(edges, edges)
    cumulative = np.sign(x) * np.sign(y) * _quadrant(np.abs(x), np.abs(y), r)
    return np.diff(np.diff(cumulative, axis=0), axis=1)


def annulus_weights(size: int, edges: Sequence[float]) -> Tensor:
    """Return shared areas of annuli and pixels, float64 ``(annulus, size * size)``, in square pixels."""
    radii = tuple(float(r) for r in edges)
    return _kept_weights(size, radii).clone() if _are_kept(size, radii) else _weights(size, radii)


def _are_kept(size: int, edges: Sequence[float]) -> bool:
    return len(edges) * size**2 <= _KEPT


@lru_cache(maxsize=16)
def _kept_weights(size: int, edges: tuple[float, ...]) -> Tensor:
    return _weights(size, edges)


def _weights(size: int, edges: tuple[float, ...]) -> Tensor:
    circles = np.stack([_circle_overlap(size, r).ravel() for r in edges])
    return torch.from_numpy(np.diff(circles, axis=0))


def annulus_sums(
    values: Tensor,
    edges: Tensor,
    *,
    center: Tensor | None = None,
    axis_ratio: Tensor | None = None,
    angle: Tensor | None = None,
    variance: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Sum pixel values over annuli, every pixel by the area that it shares.

    Parameters
    ----------
    values : Tensor
        float64 ``(sample, channel, size, size)``.
    edges : Tensor
        Borders of the annuli [pixel], ascending, float64 ``(edge,)``, or ``(sample, edge)`` of every image; of ellipses
        the semi-major axes.
    center : Tensor, optional
        Row and column ``(sample, 2)``, 0 the middle of the first pixel; the stamps' centers by default.
    axis_ratio, angle : Tensor, optional
        Minor over major axis, and the angle of the major axis from x towards y [rad], ``(sample,)``.
    variance : Tensor, optional
        Shape of the values: summed with squared weights.

    Returns
    -------
    sums : Tensor
        float64 ``(sample, channel, annulus)``.
    variances : Tensor or None
        Sums of the variance, the same shape.
    """
    n, _, size, _ = values.shape
    shared = center is None and axis_ratio is None and edges.ndim == 1
    if shared and ((kept := _are_kept(size, edges.tolist())) or variance is not None):
        weights = (_kept_weights if kept else _weights)(size, tuple(edges.tolist())).to(values.device)
        sums = values.flatten(2) @ weights.T
        return sums, None if variance is None else variance.flatten(2) @ weights.square().T
    middle = torch.full((n, 2), (size - 1) / 2, dtype=torch.float64, device=values.device)
    center, edges = middle if center is None else center, edges.expand(n, -1)
    if axis_ratio is None and variance is None:
        parts = zip(values.split(_BATCH), center.split(_BATCH), edges.split(_BATCH), strict=True)
        return torch.cat([_circle_sums(*part) for part in parts]).diff(dim=-1), None
    q = center.new_ones(n) if axis_ratio is None else axis_ratio
    theta = center.new_zeros(n) if angle is None else angle
    both = values if variance is None else torch.cat([values, variance], dim=1)
    every = zip(*(t.split(_SHEARED_BATCH) for t in (both, edges, center, q, theta)), strict=True)
    sums = torch.cat([_sheared_sums(*part, plain=values.shape[1]) for part in every])
    return sums[:, : values.shape[1]], None if variance is None else sums[:, values.shape[1] :]


def _circle_sums(values: Tensor, center: Tensor, radii: Tensor) -> Tensor:
    """Sum the light within circles ``(sample, channel, radius)``, by parts."""
    size = values.shape[-1]
    jumps = functional.pad(values, (1, 1, 1, 1)).diff(dim=-1).diff(dim=-2)
    corner = torch.arange(size + 1, dtype=torch.float64, device=values.device) - 0.5
    y, x = corner - center[:, :1], corner - center[:, 1:]
    inner, over_y = _split(jumps, y, x, center[:, 1], radii, moment=True)
    _, over_x = _split(jumps.transpose(-1, -2), x, y, center[:, 0], radii, moment=False)
    return inner + over_y + over_x


def _split(
    jumps: Tensor, row: Tensor, along: Tensor, middle: Tensor, radii: Tensor, *, moment: bool
) -> tuple[Tensor, Tensor]:
    """Sum x y over the corners inside the circles, and the outside's P of the row's own coordinate."""
    size, r = row.shape[1], radii[:, None]
    half = (r * r - row[..., None] ** 2).clamp_min(0).sqrt()
    # Corner i is at i - 1/2. On the circle itself both forms of A agree, so that rounding picks either.
    first = (middle[:, None, None] + 0.5 - half).ceil().clamp(0, size).long()[:, None]
    last = ((middle[:, None, None] + 0.5 + half).floor() + 1).clamp(0, size).long()[:, None]

    def within(terms: Tensor) -> tuple[Tensor, Tensor]:
        cumulative = functional.pad(terms.cumsum(dim=-1), (1, 0))
        index = (*terms.shape[:2], -1, -1)
        inside = cumulative.gather(-1, last.expand(index)) - cumulative.gather(-1, first.expand(index))
        return inside, cumulative[..., -1:]

    area = torch.zeros(())
    if moment:
        area = (within(jumps * along[:, None, None])[0] * row[:, None, :, None]).sum(dim=-2)
    inside, total = within(jumps * along[:, None, None].sign())
    limit = torch.minimum(row.abs()[..., None], r)
    primitive = 0.5 * (limit * half + r * r * torch.asin(limit / r.clamp_min(1e-300)))
    own = (primitive - math.pi / 8 * r * r) * row.sign()[..., None]
    return area, ((total - inside) * own[:, None]).sum(dim=-2)


def _sheared_sums(
    values: Tensor, edges: Tensor, center: Tensor, axis_ratio: Tensor, angle: Tensor, *, plain: int
) -> Tensor:
    """Sum over elliptical annuli: the first channels by the shared areas, the others by their squares."""
    n, channels, size, _ = values.shape
    count = edges.shape[1]
    q = axis_ratio[:, None, None]
    corner = torch.arange(size + 1, dtype=torch.float64, device=values.device) - 0.5
    y, x = corner[None, :, None] - center[:, :1, None], corner[None, None, :] - center[:, 1:, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    points = torch.stack([x * cos + y * sin, (y * cos - x * sin) / q], dim=-1)
    corners = [points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]]
    around = torch.stack(corners, dim=3).reshape(n, size * size, 4, 2)
    # A circle that touches a pixel is no further from its middle than the longest half diagonal.
    distance = around.mean(dim=2).norm(dim=-1)
    reach = (math.sqrt(0.5) + 1e-6) / axis_ratio[:, None]
    below = torch.searchsorted(edges.contiguous(), distance - reach)
    above = torch.searchsorted(edges.contiguous(), distance + reach)
    shares = [torch.zeros_like(distance)]
    for k in range(int((above - below).max())):
        share = torch.ones_like(distance)
        image, pixel = (above - below > k).nonzero(as_tuple=True)
        r = edges[image, below[image, pixel] + k]
        share[image, pixel] = _polygon_overlap(around[image, pixel], r) * axis_ratio[image]
        shares.append(share)
    shares.append(torch.ones_like(distance))
    sums = values.new_zeros(n, channels, count + 1)
    for k, (small, large) in enumerate(zip(shares, shares[1:], strict=False)):
        weight = (large - small)[:, None]
        weights = torch.cat([weight.expand(-1, plain, -1), weight.square().expand(-1, channels - plain, -1)], dim=1)
        bins = (below + k).clamp_max(count)[:, None].expand(-1, channels, -1)
        sums.scatter_add_(2, bins, weights * values.flatten(2))
    return sums[..., 1:count]


def _polygon_overlap(corners: Tensor, r: Tensor) -> Tensor:
    """Area that polygons ``(m, corner, 2)``, counterclockwise, share with circles of radius r around the origin."""
    p, q = corners, corners.roll(-1, dims=1)
    step, r = q - p, r[:, None]
    # Where the side's line meets the circle: |p + t step|^2 = r^2.
    a, b = step.square().sum(-1), (p * step).sum(-1)
    root = (b * b - a * (p.square().sum(-1) - r * r)).clamp_min(0).sqrt()
    enter, leave = ((-b - root) / a).clamp(0, 1)[..., None], ((-b + root) / a).clamp(0, 1)[..., None]
    s, t = p + enter * step, p + leave * step

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    def turn(u: Tensor, v: Tensor) -> Tensor:
        return torch.atan2(cross(u, v), (u * v).sum(-1))

    return 0.5 * (cross(s, t) + r * r * (turn(p, s) + turn(t, q))).sum(-1)
