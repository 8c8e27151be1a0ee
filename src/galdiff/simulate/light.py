r"""The light of a galaxy on the sky: components with known flux, before the atmosphere.

Coordinates are those of the disk: x along the major axis and y/q along the minor, m the radius in its plane.
Ellipticals and bulges follow Sérsic's law (Ciotti & Bertin 1999, A&A 352, 447, equation 18 for b),
disks :math:`e^{-m/h}`, edge-on disks the projection of that disk with an isothermal vertical profile
(van der Kruit & Searle 1981, A&A 95, 105, equation 9)

.. math:: I(x, z) \propto \frac{|x|}{h} K_1\!\left(\frac{|x|}{h}\right) \operatorname{sech}^2\frac{z}{z_0}.

Spiral arms redistribute a share c of the disk's light in azimuth and add none, since the von Mises shape has mean one:

.. math:: e^{-m/h}\left[1 - c + c\,\frac{e^{\kappa\cos\phi}}{I_0(\kappa)}\right],\qquad
          \phi = n\left(\theta - s\,\frac{\ln (m/m_0)}{\tan p}\right) - \phi_0,

with n arms of pitch p and handedness s. Bars are Ferrers ellipses of index 2 with boxy isophotes (exponent 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma, i0, k1

from galdiff.simulate.population import Galaxy, Neighbor

__all__ = ["OVERSAMPLING", "band_weights", "stamp_coordinates", "surface_brightness"]

OVERSAMPLING = 2
"""Samples a pixel and axis."""

ARM_SHARPNESS = 2.2
ARM_BLUENESS = 0.16
CORE = 0.1  # [pixel] softening of the cusps; costs 1 % of the flux at index 4 and bounds the sampling error to that

Map = NDArray[np.floating[Any]]


def stamp_coordinates(size: int) -> tuple[Map, Map]:
    """Return the oversampled x (to the right) and y (upwards) [pixel] from the middle of the stamp."""
    offset = (np.arange(size * OVERSAMPLING, dtype=np.float32) + 0.5) / OVERSAMPLING - size / 2
    return offset[None, :], -offset[:, None]


def band_weights(color: float) -> Map:
    """Return the red, green and blue weights of light of a color, of mean one."""
    weights = np.exp(np.array([0.75 * color, 0.0, -1.25 * color], dtype=np.float32))
    return weights / weights.mean()


def surface_brightness(galaxy: Galaxy, size: int, neighbors: Sequence[Neighbor] = ()) -> Map:
    """Draw a galaxy and its neighbors.

    Parameters
    ----------
    galaxy : Galaxy
        What to draw.
    size : int
        Side of the stamp [pixel].
    neighbors : sequence of Neighbor
        Background objects.

    Returns
    -------
    float32 array (3, OVERSAMPLING * size, OVERSAMPLING * size)
        Surface brightness in red, green, blue [flux/pixel]; its mean over bands sums, over pixels, to the flux.
    """
    right, up = stamp_coordinates(size)
    angle = np.radians(galaxy.position_angle)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = right - np.float32(galaxy.x), up - np.float32(galaxy.y)
    x, y = cos * dx + sin * dy, cos * dy - sin * dx

    bulge_radius = galaxy.r_half if galaxy.kind == "elliptical" else galaxy.bulge_radius
    index = galaxy.sersic_index if galaxy.kind == "elliptical" else 2.0
    bulge = _sersic(x, y, galaxy.bulge_axis_ratio, index, bulge_radius)
    parts = [(galaxy.bulge_fraction, galaxy.color, bulge)]
    if galaxy.kind == "edge_on":
        parts.append((1 - galaxy.bulge_fraction, galaxy.disk_color, _edge_on_disk(x, y, galaxy)))
    elif galaxy.kind == "disk":
        share = 1 - galaxy.bulge_fraction - galaxy.bar_fraction
        y = y / np.float32(galaxy.axis_ratio)
        smooth, arms = _disk(x, y, galaxy)
        parts.append((share, galaxy.disk_color, smooth))
        if galaxy.has_spiral:
            parts.append((share, galaxy.disk_color - ARM_BLUENESS, arms))
        if galaxy.has_bar:
            parts.append((galaxy.bar_fraction, 0.8 * galaxy.color, _bar(x, y, galaxy)))
    scene = np.zeros((3, *bulge.shape), dtype=np.float32)
    for share, color, part in parts:
        scene += (galaxy.flux * share * band_weights(color))[:, None, None] * part
    for n in neighbors:
        blob = _gaussian(right - np.float32(n.x), n.width) * _gaussian(up - np.float32(n.y), n.width)
        scene += (n.flux * band_weights(n.color))[:, None, None] * blob
    return scene


def _gaussian(x: Map, width: float) -> Map:
    return np.float32(1 / (np.sqrt(2 * np.pi) * width)) * np.exp(-((x / np.float32(width)) ** 2) / 2)


def _sersic(x: Map, y: Map, axis_ratio: float, index: float, r_half: float) -> Map:
    b = 2 * index - 1 / 3 + 4 / (405 * index) + 46 / (25515 * index**2)
    norm = b ** (2 * index) / (2 * np.pi * index * r_half**2 * axis_ratio * gamma(2 * index))
    m2 = (x**2 + (y / np.float32(axis_ratio)) ** 2 + np.float32(CORE**2)) / np.float32(r_half**2)
    return np.float32(norm) * np.exp(np.float32(-b) * m2 ** np.float32(0.5 / index))


def _edge_on_disk(x: Map, y: Map, galaxy: Galaxy) -> Map:
    h = galaxy.r_half / 1.6783
    # Second moments: sqrt(3) h along the disk, pi/sqrt(12) z0 across.
    z0 = galaxy.axis_ratio * h * 6 / np.pi
    t = np.maximum(np.abs(x) / np.float32(h), np.float32(1e-3))
    z = np.minimum(np.abs(y) / np.float32(z0), np.float32(30))
    return np.float32(1 / (2 * np.pi * h * z0)) * t * k1(t) / np.cosh(z) ** 2


def _disk(x: Map, y: Map, galaxy: Galaxy) -> tuple[Map, Map]:
    """Return the old light of the disk and the young light of its arms; together they have unit flux."""
    h = galaxy.r_half / 1.6783
    m = np.sqrt(x**2 + y**2)
    disk = np.float32(1 / (2 * np.pi * h**2 * galaxy.axis_ratio)) * np.exp(-m / np.float32(h))
    if not galaxy.has_spiral:
        return disk, np.zeros_like(disk)
    ramp = np.clip((m - np.float32(0.7 * galaxy.arm_start)) / np.float32(0.6 * h), 0, 1)
    contrast = np.float32(galaxy.arm_contrast) * ramp * ramp * (3 - 2 * ramp)
    log_m = np.log(np.maximum(m, np.float32(0.1)) / np.float32(galaxy.arm_start))
    winding = np.float32(galaxy.handedness / np.tan(np.radians(galaxy.pitch)))
    theta = np.arctan2(y, x)
    phi = np.float32(galaxy.n_arms) * (theta - np.float32(np.radians(galaxy.arm_phase)) - winding * log_m)
    # Knots of star formation move light along the arms; the phase differs from arm to arm.
    knots = 1 + np.float32(0.3) * np.cos(14 * log_m + theta + np.float32(np.radians(galaxy.knot_phase)))
    arms = knots * np.exp(np.float32(ARM_SHARPNESS) * np.cos(phi)) / np.float32(i0(ARM_SHARPNESS))
    return disk * (1 - contrast), disk * contrast * arms


def _bar(x: Map, y: Map, galaxy: Galaxy) -> Map:
    angle = np.radians(galaxy.bar_angle)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    a, b = np.float32(galaxy.bar_length), np.float32(galaxy.bar_length * galaxy.bar_axis_ratio)
    along, across = np.abs(cos * x + sin * y) / a, np.abs(cos * y - sin * x) / b
    bar = np.maximum(1 - (along**3 + across**3) ** np.float32(2 / 3), 0) ** 2
    return bar * np.float32(OVERSAMPLING**2 / bar.sum(dtype=np.float64))
