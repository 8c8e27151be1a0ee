r"""Sérsic profiles, fitted to cutouts in two dimensions, a batch at once.

.. math:: I = I_e \exp\left(-b_n \left[(\rho / r_e)^{1/n} - 1\right]\right), \qquad P(2 n, b_n) = \tfrac{1}{2}

(Sersic 1968; Graham & Driver 2005, PASA 22, 118), with :math:`\rho` the semi-major axis of the ellipse through a
pixel and P the incomplete gamma function. The ellipse is :math:`\rho^2 / r_e^2 = |L d|^2` for a symmetric matrix L,
which has no singular angle when it is round. Fitted are :math:`I_e, \ln n`, L and the center, by Levenberg and
Marquardt's method with analytic derivatives; the profile is taken at pixel centers, as statmorph takes it, and
convolved with the PSF if there is one. Such profiles are found to a thousandth. Of light that pixels have averaged, n
comes out low by up to 6 % for n = 1 and n = 2, and high by up to 13 % for n = 4, at radii of 4 to 8 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from galdiff.metrics.gini import smooth

__all__ = ["SersicFit", "fit_sersic", "sersic_b"]

_ROUNDS = 60
_BLOCK = {"cpu": 64}  # images at a time: what stays in a core's cache
_TOLERANCE = 1e-6
_TRUSTED = 1e-2  # damping
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
        ``(sample, y, x)``; weights are inverse variances in any unit, 0 for pixels that do not count.
    center, radius, ellipticity, orientation, index : Tensor
        First guesses.
    psf_sigma : float, optional
        Standard deviation of a normal PSF [pixel].
    """
    # Units do not matter: light of 1e-11 is fitted like light of 1.
    unit_of = light.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(light.dtype).tiny)
    weight = weight / weight.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    model = _Model((light / unit_of).float(), weight.float(), psf_sigma)
    cos, sin = orientation.cos(), orientation.sin()
    major, minor = 1 / radius, 1 / (radius * (1 - ellipticity).clamp_min(0.02))
    shape = (
        major * cos.square() + minor * sin.square(),
        (major - minor) * sin * cos,
        major * sin.square() + minor * cos.square(),
    )
    index = index.clamp(0.5, 6)
    start = torch.stack([(-sersic_b(index)).exp(), index.log(), *shape, *center.unbind(dim=1)], dim=1)
    best, converged = _minimize(model, *_at_best_amplitude(start, model(start)))
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
    middle = torch.stack([y, x], dim=1)
    amplitude = amplitude * unit_of[:, 0, 0]
    return SersicFit(amplitude, 1 / low, log_n.exp(), 1 - low / high, along, middle, converged, bounded)


_X, _Y = np.array([2, 1, 0, 1, 0, 0]), np.array([0, 1, 2, 0, 1, 0])  # powers in x x, x y, y y, x, y, 1


class _Model:
    r"""Inner products of the derivatives of the profile and of the residual.

    By L and the center the profile's derivatives are one map q times polynomials of x and y, so that their products
    are moments of :math:`q^2` up to the fourth, which are a matrix product for all images, and combinations of them.
    """

    def __init__(self, light: Tensor, weight: Tensor, psf_sigma: float | None) -> None:
        height, width = light.shape[1:]
        self.unit = max(height, width) / 2
        self.middle = light.new_tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64)
        self.root = None if bool((weight == 1).all()) else weight.sqrt()
        self.light = light if self.root is None else light * self.root
        self.psf_sigma = psf_sigma
        self.y, self.x = (
            torch.arange(n, dtype=light.dtype, device=light.device) - (n - 1) / 2 for n in (height, width)
        )
        self.y_powers, self.x_powers = (
            torch.stack([(grid / self.unit) ** k for k in range(5)]) for grid in (self.y, self.x)
        )

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the images."""
        self.light = self.light[rows]
        self.root = None if self.root is None else self.root[rows]

    def __call__(self, parameters: Tensor) -> Tensor:
        """Multiply derivatives by amplitude, ln n, the three numbers of L, the center's y and x, and the residual.

        Parameters
        ----------
        parameters : Tensor
            float64 ``(n, 7)``.

        Returns
        -------
        torch.Tensor
            float64 ``(n, 8, 8)``; the residual is last.
        """
        block = _BLOCK.get(parameters.device.type, len(parameters))
        parts = (slice(k, k + block) for k in range(0, len(parameters), block))
        return torch.cat([self._multiply(parameters[part], part) for part in parts])

    def _multiply(self, parameters: Tensor, part: slice) -> Tensor:
        light, root = self.light[part], None if self.root is None else self.root[part]
        amplitude, log_n, xx, xy, yy = parameters[:, :5].unbind(dim=1)
        center = parameters[:, 5:] - self.middle
        n = log_n.exp()
        b, b_above = sersic_b(torch.stack([n, n * 1.001])).unbind()
        slope = (b_above - b) / math.log(1.001)  # n db / dn
        columns = (amplitude, n, b, slope, xx, xy, yy, *center.unbind(dim=1))
        a, n, b, slope, sxx, sxy, syy, y0, x0 = (value.to(self.x.dtype)[:, None, None] for value in columns)
        dy, dx = self.y[:, None] - y0, self.x - x0
        square = (sxx * dx + sxy * dy).square_().add_((sxy * dx + syy * dy).square_()).clamp_min_(_SMALLEST)
        log_z = square.log().mul_(0.5 / n)
        bz = log_z.exp().mul_(b)
        # The profile's derivatives by amplitude and ln n, twice that by the squared radius, all but their factors.
        maps = square.new_empty(len(square), 4, *square.shape[1:])
        residual, unit, by_n, by_square = maps.unbind(dim=1)
        torch.sub(b, bz, out=unit).exp_()
        if self.psf_sigma is None and root is not None:
            unit *= root
        torch.div(bz, square, out=by_square).mul_(unit)
        torch.mul(log_z.sub_(slope / b).mul_(bz).add_(slope), unit, out=by_n)
        if self.psf_sigma is None:
            torch.addcmul(light, a, unit, value=-1, out=residual)
            products = self._products(maps)
        else:
            products = self._convolved_products(maps[:, 1:], self.psf_sigma, a, root, light)
        factors = self._factors(amplitude, log_n.exp(), xx, xy, yy, center)
        return factors @ products @ factors.mT

    def _products(self, maps: Tensor) -> Tensor:
        """Multiply the residual, two maps, and the fourth times x x, x y, y y, x, y and 1: ``(n, 9, 9)``.

        The maps are spent.
        """
        found = maps.new_empty(len(maps), 9, 9, dtype=torch.float64)
        others = maps[:, :3].flatten(2)
        found[:, :3, :3] = others @ others.mT
        found[:, 0, 0] = _square_sum(maps[:, 0])
        # In place: to get as much memory anew takes longer than to fill it.
        maps[:, :3].mul_(maps[:, 3:])
        maps[:, 3].square_()
        moments = self.y_powers @ maps @ self.x_powers.T
        found[:, :3, 3:] = moments[:, :3, _Y, _X]
        found[:, 3:, :3] = found[:, :3, 3:].mT
        found[:, 3:, 3:] = moments[:, 3, _Y[:, None] + _Y, _X[:, None] + _X]
        return found

    def _convolved_products(
        self, maps: Tensor, sigma: float, amplitude: Tensor, root: Tensor | None, light: Tensor
    ) -> Tensor:
        """Do the same of maps that are to be convolved with the PSF first: then moments are no shorter way."""
        powers = torch.stack([self.y_powers[j, :, None] * self.x_powers[i] for i, j in zip(_X, _Y, strict=True)])
        maps = torch.cat([maps[:, :2], maps[:, 2:] * powers], dim=1)
        maps = smooth(maps.flatten(0, 1), maps.new_full((8 * len(maps),), sigma)).view_as(maps)
        maps = maps if root is None else maps * root[:, None]
        residual = torch.addcmul(light, amplitude, maps[:, 0], value=-1)
        maps = torch.cat([residual[:, None], maps], dim=1).flatten(2)
        found = (maps @ maps.mT).double()
        found[:, 0, 0] = _square_sum(residual)
        return found

    def _factors(self, amplitude: Tensor, n: Tensor, xx: Tensor, xy: Tensor, yy: Tensor, center: Tensor) -> Tensor:
        """Return what of `_products` the derivatives consist of, ``(n, 8, 9)``."""
        y, x = (center / self.unit).unbind(dim=1)
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        # Monomials about the center out of those about the middle of the stamp.
        moved = [
            [one, zero, zero, -2 * x, zero, x * x],
            [zero, one, zero, -y, -x, x * y],
            [zero, zero, one, zero, -2 * y, y * y],
            [zero, zero, zero, one, zero, -x],
            [zero, zero, zero, zero, one, -y],
        ]
        by = [
            [xx, xy, zero, zero, zero],
            [xy, xx + yy, xy, zero, zero],
            [zero, xy, yy, zero, zero],
            [zero, zero, zero, -xy * (xx + yy), -xy * xy - yy * yy],
            [zero, zero, zero, -xx * xx - xy * xy, -xy * (xx + yy)],
        ]
        shape, about = (torch.stack([torch.stack(row, dim=1) for row in rows], dim=1) for rows in (by, moved))
        length = shape.new_tensor([self.unit**2] * 3 + [self.unit] * 2)
        factors = shape.new_zeros(len(x), 8, 9)
        factors[:, 0, 1] = factors[:, 7, 0] = 1
        factors[:, 1, 2] = amplitude
        factors[:, 2:7, 3:] = (-amplitude / n)[:, None, None] * (shape @ (length[:, None] * about))
        return factors


def _square_sum(residual: Tensor) -> Tensor:
    """Return what is minimized, of which a millionth decides when a fit ends, in float64."""
    return torch.linalg.vector_norm(residual, dim=(1, 2), dtype=torch.float64).square()


def _at_best_amplitude(parameters: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Return parameters of the brightness that follows from the rest, and their products, without looking again.

    All derivatives but that by the amplitude are proportional to it, and the residual is linear in it.
    """
    rise = products[:, 0, 7] / products[:, 0, 0].clamp_min(1e-30)
    amplitude = parameters[:, 0] + rise
    change = torch.ones_like(products[:, 0])
    change[:, 1:7] = (amplitude / parameters[:, 0])[:, None]
    change = torch.diag_embed(change)
    change[:, 7, 0] = -rise
    return torch.cat([amplitude[:, None], parameters[:, 1:]], dim=1), change @ products @ change.mT


def _minimize(model: _Model, start: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg and Marquardt's method with a damping of every image's own; images that have converged rest.

    It begins with the products at the start.
    """
    best = start.clone()
    chi2 = best.new_full((len(best),), torch.inf)
    running = torch.arange(len(best), device=best.device)
    damping = best.new_full((len(best),), 1e-3)
    products = best.new_zeros(len(best), 8, 8)
    for k in range(_ROUNDS):
        trial = best[running]
        if k:
            normal, gradient = products[:, :7, :7], products[:, :7, 7]
            scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30)
            step = torch.linalg.solve_ex(normal + torch.diag_embed(damping[:, None] * scale), gradient)[0]
            trial = trial + step.nan_to_num()
            trial[:, 1] = trial[:, 1].clamp(*_BOUNDS)
            # Where the parabola is trusted and promises next to nothing, its minimum need not be looked at.
            promised = (step * (2 * gradient - torch.linalg.vecdot(normal, step[:, None]))).sum(dim=1)
            going = ~((promised < _TOLERANCE * chi2[running]) & (damping < _TRUSTED))
            if not going.all():
                best[running[~going]] = trial[~going]
                trial, running, damping, products = trial[going], running[going], damping[going], products[going]
                model.keep(going)
            if not len(running):
                break
        found = model(trial) if k else first
        value, least = found[:, 7, 7], chi2[running]
        better = value < least
        gain = (least - value) / value.clamp_min(1e-300)
        products = torch.where(better[:, None, None], found, products)
        best[running] = torch.where(better[:, None], trial, best[running])
        chi2[running] = torch.where(better, value, least)
        damping = torch.where(better, damping / 9, damping * 7).clamp(1e-9, 1e12)
        # Too little to gain, or no step small enough helps.
        going = ~((better & (gain < _TOLERANCE)) | (damping > 1e8))
        if not going.all():
            running, damping, products = running[going], damping[going], products[going]
            model.keep(going)
        if not len(running):
            break
    ended = torch.ones_like(chi2, dtype=torch.bool).index_fill_(0, running, False)
    return best, ended & torch.isfinite(best).all(dim=1) & torch.isfinite(chi2)
