r"""Dark matter within a lens: point masses and truncated NFW halos (cold), a vortex line (axions).

Subhalo masses follow :math:`dN/dm \propto m^{-1.9}` between 1e6 and 1e10 solar masses, 25 of them on average (Alexander
et al. 2020, ApJ 893, 15, section 2). DeepLenseSim draws by inverting :math:`m^{0.1}` instead, which
is the mass function :math:`m^{-0.9}` and a hundred times the mass, and always 25: so does `draw_subhalos` with
``compat``.

A vortex is a uniform line of mass through the center of the lens. With :math:`z = x + i y` along the line, half length
L and the Einstein radius of its mass, the sum over its points has the closed form

.. math:: \alpha^* = \frac{\theta_E^2}{2 L} \ln \frac{z + L}{z - L}.

A truncated halo is that of Baltz, Marshall & Oguri 2009 (JCAP 01, 015), with the concentration of Duffy et al. 2008
(MNRAS 390, L64, table 1, mean of all halos within 200 times the critical density).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from galdiff.randomness import uniform
from galdiff.simulate.counts import poisson
from galdiff.simulate.lensing import ARCSEC, LENS_REDSHIFT, SOFTENING, Distances, caustics_functions

__all__ = ["PointMasses", "Substructure", "TruncatedHalos", "VortexLine", "draw_subhalos", "draw_vortex"]

MEAN_NUMBER, LARGEST_NUMBER = 25, 64
MASS_RANGE = (1e6, 1e10)  # [solar mass]
SLOPE, COMPAT_SLOPE = -1.9, -0.9
RADIUS_RANGE = (0.25, 2.0)  # [arcsec]
VORTEX_MASS = 3e10  # [solar mass]
VORTEX_POINTS = 100
HALF_LENGTH = 0.03e-22  # [arcsec eV]: that of the de Broglie wavelength at z = 0.5, over the axion's mass
HUBBLE = 0.7
TRUNCATION = 5.0  # [scale radius]


class Substructure(Protocol):
    """What bends light besides the galaxy, for a batch of lenses."""

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reduced deflection ``(n, rows, columns)`` at positions ``(rows, columns)`` [arcsec]."""


@dataclass(frozen=True)
class PointMasses:
    """Points of Einstein radii ``(n, k)`` at x, y [arcsec]; a radius of zero is no point."""

    x: Tensor
    y: Tensor
    radius: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Add up the points' deflections."""
        deflect = caustics_functions().reduced_deflection_angle_point
        bend = [torch.zeros(len(self.x), *x.shape, dtype=x.dtype, device=x.device) for _ in range(2)]
        for px, py, radius in zip(*(t.T[..., None, None] for t in (self.x, self.y, self.radius)), strict=True):
            for total, part in zip(bend, deflect(px, py, radius, x, y, SOFTENING), strict=True):
                total += part
        return bend[0], bend[1]


@dataclass(frozen=True)
class TruncatedHalos:
    """Truncated NFW halos of total masses ``(n, k)`` [solar mass] at x, y [arcsec]; a mass of zero is no halo."""

    x: Tensor
    y: Tensor
    mass: Tensor
    distances: Distances

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Add up the halos' deflections."""
        functions, d = caustics_functions(), self.distances
        mass = self.mass.clamp(min=1.0)
        concentration = 5.71 * (mass * HUBBLE / 2e12) ** -0.084 * (1 + LENS_REDSHIFT) ** -0.47
        virial = (3 * mass / (800 * math.pi * d.critical_density)) ** (1 / 3) / (d.lens * ARCSEC)
        scale, tau = virial / concentration, torch.tensor(TRUNCATION, dtype=x.dtype, device=x.device)
        norm = functions.M0_totmass_tnfw(self.mass, tau) * d.between / d.source
        bend = [torch.zeros(len(self.x), *x.shape, dtype=x.dtype, device=x.device) for _ in range(2)]
        columns = (t.T[..., None, None] for t in (self.x, self.y, scale, norm))
        for px, py, rs, m0 in zip(*columns, strict=True):
            parts = functions.physical_deflection_angle_tnfw(px, py, rs, tau, x, y, m0, d.lens, SOFTENING)
            for total, part in zip(bend, parts, strict=True):
                total += part
        return bend[0], bend[1]


@dataclass(frozen=True)
class VortexLine:
    """A uniform line of mass through the center: Einstein radius of the whole, half length [arcsec], angle ``(n,)``."""

    radius: Tensor
    half_length: Tensor
    angle: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the closed form."""
        radius, length, angle = (t[:, None, None] for t in (self.radius, self.half_length, self.angle))
        cos, sin = angle.cos(), angle.sin()
        along, across = x * cos + y * sin, y * cos - x * sin
        ahead, behind = along + length, along - length
        norm = radius**2 / (2 * length)
        a = norm / 2 * ((ahead**2 + across**2) / (behind**2 + across**2)).log()
        b = norm * (torch.atan2(across, behind) - torch.atan2(across, ahead))
        return a * cos - b * sin, a * sin + b * cos

    def points(self, count: int = VORTEX_POINTS) -> PointMasses:
        """Cut the line into equal point masses from one end to the other."""
        step = torch.linspace(-1, 1, count, dtype=self.radius.dtype, device=self.radius.device)
        place = self.half_length[:, None] * step
        radius = (self.radius[:, None] / math.sqrt(count)).expand(-1, count)
        return PointMasses(place * self.angle.cos()[:, None], place * self.angle.sin()[:, None], radius)


def draw_subhalos(
    index: Tensor, *, seed: int, compat: bool = False, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw subhalos; their radii and angles are uniform, so that they crowd toward the center.

    Parameters
    ----------
    index : Tensor
        Indices of the lenses, int64 ``(n,)``.
    seed : int
        Seed of the simulation.
    compat : bool
        Always 25, of the mass function with slope -0.9.
    device : optional
        Where.

    Returns
    -------
    x, y, mass : Tensor
        float64 ``(n, k)`` [arcsec, arcsec, solar mass]; masses of zero fill up the rows.
    """
    number = torch.full((len(index),), float(MEAN_NUMBER), dtype=torch.float64, device=device)
    if not compat:
        number = poisson(number, seed=seed, stream="subhalo/number", index=index).clamp(max=LARGEST_NUMBER)
    u, r, turn = uniform(seed, "subhalo", index, (LARGEST_NUMBER, 3), device).double().unbind(-1)
    power = 1 + (COMPAT_SLOPE if compat else SLOPE)
    low, high = (m**power for m in MASS_RANGE)
    mass = (low + (high - low) * u) ** (1 / power)
    mass = mass * (torch.arange(LARGEST_NUMBER, device=device) < number[:, None])
    radius = RADIUS_RANGE[0] + (RADIUS_RANGE[1] - RADIUS_RANGE[0]) * r
    filled = int(number.max()) if len(index) else 0
    angle = 2 * math.pi * turn
    return (radius * angle.sin())[:, :filled], (radius * angle.cos())[:, :filled], mass[:, :filled]


def draw_vortex(index: Tensor, *, seed: int, device: torch.device | str | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Draw vortices of 3e10 solar masses.

    Returns
    -------
    mass, half_length, angle : Tensor
        float64 ``(n,)``: of the axion, log-uniform between 1e-24 and 1e-22 [eV]; of the line [arcsec]; its direction.
    """
    u, turn = uniform(seed, "vortex", index, (2,), device).double().unbind(-1)
    mass = 10 ** (-24 + 2 * u)
    return mass, HALF_LENGTH / mass, 2 * math.pi * turn
