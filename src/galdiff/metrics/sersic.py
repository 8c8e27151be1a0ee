r"""Sérsic profiles, fitted to cutouts in two dimensions, a batch at once.

.. math:: I = I_e \exp\left(-b_n \left[(\rho / r_e)^{1/n} - 1\right]\right), \qquad P(2 n, b_n) = \tfrac{1}{2}

(Sersic 1968; Graham & Driver 2005, PASA 22, 118), with :math:`\rho` the semi-major axis of the ellipse through a pixel
and P the incomplete gamma function. The ellipse is :math:`\rho^2 / r_e^2 = |L d|^2` for a symmetric matrix L, which has no
singular angle when it is round. Fitted are :math:`I_e, \ln n`, L and the center, by Levenberg and Marquardt's method with
analytic derivatives; the profile is taken at pixel centers, as statmorph takes it, and convolved with the PSF if there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from galdiff.metrics.gini import smooth

__all__ = ["SersicFit", "fit_sersic", "sersic_b"]

_ROUNDS = 60
_TOLERANCE = 1e-7
_BOUNDS = (math.log(0.1), math.log(10.0))
_SMALLEST = 1e-3  # squared radius in units of r_e^2: the profile of the central pixel stays finite


@dataclass(frozen=True)
class SersicFit:
    """Best profiles, ``(sample,)`` each.

    Attributes
    ----------
    amplitude : Tensor
        Brightness at the half-light radius.
    radius : Tensor
        Half-light semi-major axis [pixel].
    index : Tensor
        Sérsic index n, between 0.1 and 10.
    ellipticity, orientation : Tensor
        1 - b / a and the angle of the major axis from x to y [rad].
    center : Tensor
        y and x, ``(sample, 2)``.
    converged, bounded : Tensor
        Whether the fit came to an end, and whether n is at a bound.
    """

    amplitude: Tensor
    radius: Tensor
    index: Tensor
    ellipticity: Tensor
    orientation: Tensor
    center: Tensor
    converged: Tensor
    bounded: Tensor


def sersic_b(n: Tensor) -> Tensor:
    """Return b_n, with which half of the light is within the half-light radius."""
    a = 2 * n
    guess = torch.where(n > 0.36, a - 1 / 3 + 4 / (405 * n), ((a + 1).lgamma() - math.log(2)).div(a).exp())
    log_b = guess.log()
    for _ in range(5):  # Newton's method in ln b
        b = log_b.exp()
        slope = (a * log_b - b - a.lgamma()).exp()
        log_b = log_b - (torch.special.gammainc(a, b) - 0.5) / slope
    return log_b.exp()


def fit_sersic(
    light: Tensor,
    weight: Tensor,
    *,
    center: Tensor,
    radius: Tensor,
    ellipticity: Tensor,
    orientation: Tensor,
    index: Tensor,
    psf_sigma: float | None = None,
) -> SersicFit:
    """Fit every image.

    Parameters
    ----------
    light, weight : Tensor
        float64 ``(sample, y, x)``; weights are inverse variances, 0 for pixels that do not count.
    center, radius, ellipticity, orientation, index : Tensor
        First guesses.
    psf_sigma : float, optional
        Standard deviation of a normal PSF [pixel].
    """
    # Units do not matter: light of 1e-11 is fitted like light of 1.
    unit_of = light.abs().amax(dim=(1, 2)).clamp_min(1e-300)[:, None, None]
    light, weight = light / unit_of, weight * unit_of.square()
    weight = weight / weight.amax(dim=(1, 2), keepdim=True).clamp_min(1e-300)
    light, weight = light.float(), weight.float()
    model = _Model(light.shape, light, psf_sigma)
    cos, sin = orientation.cos(), orientation.sin()
    major, minor = 1 / radius, 1 / (radius * (1 - ellipticity).clamp_min(0.02))
    shape = (
        major * cos.square() + minor * sin.square(),
        (major - minor) * sin * cos,
        major * sin.square() + minor * cos.square(),
    )
    start = torch.stack([torch.ones_like(radius), index.clamp(0.5, 6).log(), *shape, *center.unbind(dim=1)], dim=1)
    # The brightness follows from the rest.
    unit = model(start)[0]
    start[:, 0] = (weight * unit * light).sum(dim=(1, 2)) / (weight * unit.square()).sum(dim=(1, 2)).clamp_min(1e-30)
    best, converged = _minimize(model, start, light, weight)
    amplitude, log_n, xx, xy, yy, y, x = best.unbind(dim=1)
    mean, gap = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    # L may have come out with any signs; lengths of its axes count.
    values = torch.stack([mean - gap, mean + gap]).abs()
    low, high = values.amin(dim=0), values.amax(dim=0)
    flipped = values[0] > values[1]
    along = torch.atan2(2 * xy, xx - yy) / 2  # the direction of the larger eigenvalue
    along = torch.where(flipped, along, along + torch.pi / 2)
    along = torch.remainder(along + torch.pi / 2, torch.pi) - torch.pi / 2
    bounded = (log_n <= _BOUNDS[0]) | (log_n >= _BOUNDS[1])
    return SersicFit(
        amplitude * unit_of[:, 0, 0], 1 / low, log_n.exp(), 1 - low / high, along, torch.stack([y, x], dim=1), converged, bounded
    )


class _Model:
    """Profiles and their derivatives by amplitude, ln n, the three numbers of L, and the center's y and x."""

    def __init__(self, shape: torch.Size, like: Tensor, psf_sigma: float | None) -> None:
        self.y = torch.arange(shape[1], dtype=like.dtype, device=like.device)[:, None]
        self.x = torch.arange(shape[2], dtype=like.dtype, device=like.device)
        self.psf_sigma = psf_sigma

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        amplitude, log_n, xx, xy, yy, y0, x0 = parameters.to(self.x.dtype)[:, :, None, None].unbind(dim=1)
        n = parameters[:, 1].exp()
        b = sersic_b(n)
        slope = (sersic_b(n * 1.001) - sersic_b(n / 1.001)) / (2 * math.log(1.001))  # n db / dn
        n, b, slope = (value.to(self.x.dtype)[:, None, None] for value in (n, b, slope))
        dy, dx = self.y - y0, self.x - x0
        u, v = xx * dx + xy * dy, xy * dx + yy * dy
        square = (u.square() + v.square()).clamp_min(_SMALLEST)
        log_z = square.log() / (2 * n)
        z = log_z.exp()
        unit = torch.exp(-b * (z - 1))
        profile = amplitude * unit
        bz = b * z
        by_square = -profile * bz / (n * square)  # twice the derivative by the squared radius
        along, across = by_square * u, by_square * v
        maps = torch.stack(
            [
                unit,
                profile * (bz * log_z - slope * (z - 1)),
                along * dx,
                along * dy + across * dx,
                across * dy,
                -(along * xy + across * yy),
                -(along * xx + across * xy),
            ],
            dim=1,
        )
        if self.psf_sigma is not None:
            sigma = profile.new_full((8 * len(profile),), self.psf_sigma)
            both = torch.cat([profile[:, None], maps], dim=1).flatten(0, 1)
            both = smooth(both, sigma).unflatten(0, (len(profile), 8))
            profile, maps = both[:, 0], both[:, 1:]
        return profile, maps


def _minimize(model: _Model, start: Tensor, light: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg and Marquardt's method with a damping of every image's own; images that have converged rest."""
    best = start.clone()
    size = best.shape[1]
    damping = best.new_full((len(best),), 1e-2)
    chi2 = best.new_full((len(best),), torch.inf)
    normal, gradient = best.new_zeros(len(best), size, size), best.new_zeros(len(best), size)
    running = torch.ones(len(best), dtype=torch.bool, device=best.device)
    trial = best
    for k in range(_ROUNDS):
        rows = torch.nonzero(running)[:, 0]
        if not len(rows):
            break
        if k:
            scale = normal[rows].diagonal(dim1=1, dim2=2).clamp_min(1e-30)
            step = torch.linalg.solve_ex(normal[rows] + torch.diag_embed(damping[rows, None] * scale), gradient[rows])[0]
            trial = best[rows] + step.nan_to_num()
            trial[:, 1] = trial[:, 1].clamp(*_BOUNDS)
        profile, maps = model(trial)
        w, rest = weight[rows], light[rows] - profile
        value = (w * rest.square()).sum(dim=(1, 2), dtype=torch.float64)
        better = value < chi2[rows]
        gain = (chi2[rows] - value) / value.clamp_min(1e-300)
        weighted, kept = (maps * w[:, None]).flatten(2), rows[better]
        normal[kept] = (weighted @ maps.flatten(2).mT)[better].double()
        gradient[kept] = (weighted @ rest.flatten(1)[..., None])[better, :, 0].double()
        best[kept], chi2[kept] = trial[better], value[better]
        damping[rows] = torch.where(better, damping[rows] / 9, damping[rows] * 7).clamp(1e-9, 1e12)
        # Too little to gain, or no step small enough helps.
        running[rows] = ~((better & (gain < _TOLERANCE)) | (damping[rows] > 1e8)) & (torch.isfinite(value) | (k > 0))
    return best, ~running & torch.isfinite(best).all(dim=1) & torch.isfinite(chi2)
