r"""The light of a lensed source: rays are followed back from a fine grid to an elliptical Sérsic source.

Lensing conserves surface brightness: a ray seen at :math:`\theta` shows the source at
:math:`\beta = \theta - \alpha(\theta)`. The galaxy is a singular isothermal ellipsoid (Kormann, Schneider & Bartelmann
1994, A&A 284, 285) with an external shear; its convergence is :math:`\theta_E / 2 \sqrt{q x^2 + y^2 / q}`. The source
is :math:`I(R) = I_e \exp(-b_n [(R/R_e)^{1/n} - 1])` with :math:`R^2 = q x^2 + y^2 / q`, so that its flux does not
depend on q. Every pixel is sampled ``oversampling`` times an axis, blurred there, and binned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from galdiff.simulate.lensing import SOFTENING, axis_ratio, caustics_functions
from galdiff.simulate.substructure import Substructure

__all__ = ["Galaxy", "Source", "blur_and_bin", "pixel_grid", "trace"]


@dataclass(frozen=True)
class Galaxy:
    """The lensing galaxy: Einstein radius [arcsec], ellipticity and external shear."""

    einstein_radius: float
    e1: float = 0.1
    e2: float = 0.0
    gamma1: float = 0.05
    gamma2: float = 0.0

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reduced deflection at positions x, y [arcsec]."""
        functions = caustics_functions()
        q, angle = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in axis_ratio(self.e1, self.e2))
        ax, ay = functions.reduced_deflection_angle_sie(0.0, 0.0, q, angle, self.einstein_radius, x, y, SOFTENING)
        sx, sy = functions.reduced_deflection_angle_external_shear(0.0, 0.0, self.gamma1, self.gamma2, x, y)
        return ax + sx, ay + sy


@dataclass(frozen=True)
class Source:
    """A Sérsic source.

    Attributes
    ----------
    amplitude : float
        Surface brightness at the half-light radius [flux/arcsec^2].
    radius : float
        Half-light radius [arcsec].
    n, e1, e2 : float
        Sérsic index and ellipticity.
    compat : bool
        lenstronomy's linear fit to b_n, a third of a percent off, in place of Ciotti & Bertin 1999 (A&A 352, 447).
    """

    amplitude: float = 1.0
    radius: float = 0.25
    n: float = 1.0
    e1: float = -0.1
    e2: float = 0.1
    compat: bool = False

    def _b(self) -> float:
        functions = caustics_functions()
        return float(functions.k_lenstronomy(self.n) if self.compat else functions.k_sersic(self.n))

    def flux(self) -> float:
        """Light of the whole source, not lensed."""
        b, n = self._b(), self.n
        return 2 * math.pi * self.amplitude * self.radius**2 * n * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n)

    def with_flux(self, flux: float) -> Source:
        """Return a source of that flux."""
        amplitude = self.amplitude * flux / self.flux()
        return Source(amplitude, self.radius, self.n, self.e1, self.e2, self.compat)

    def brightness(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the surface brightness at distances x, y [arcsec] from the center."""
        q, angle = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in axis_ratio(self.e1, self.e2))
        # The radius of caustics is along the major axis.
        major = self.radius / q.sqrt()
        return caustics_functions().brightness_sersic(
            0.0, 0.0, q, angle, self.n, major, self.amplitude, x, y, self._b()
        )


def pixel_grid(
    size: int, scale: float, oversampling: int = 1, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Return x and y [arcsec] of the samples of a centered stamp, float64, of side ``size * oversampling``.

    Parameters
    ----------
    size : int
        Side of the stamp [pixel].
    scale : float
        Pixel scale [arcsec/pixel].
    oversampling : int
        Samples a pixel, an axis.
    device : optional
        Where.
    """
    n = size * oversampling
    axis = (torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2) * (scale / oversampling)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def trace(
    x: Tensor,
    y: Tensor,
    galaxy: Galaxy,
    source: Source,
    center: Tensor,
    *,
    substructure: Substructure | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Follow rays back to sources.

    Parameters
    ----------
    x, y : Tensor
        Where the rays are seen, float64 ``(rows, columns)`` [arcsec].
    galaxy, source
        The lens and its source, the same for all.
    center : Tensor
        Positions of the sources ``(n, 2)`` [arcsec].
    substructure : Substructure, optional
        Of the n lenses.
    strength : float
        Factor of all deflections.

    Returns
    -------
    Tensor
        Surface brightness ``(n, rows, columns)`` [flux/arcsec^2].
    """
    ax, ay = galaxy.deflection(x, y)
    if substructure is not None:
        sx, sy = substructure.deflection(x, y)
        ax, ay = ax + sx, ay + sy
    cx, cy = center.T[..., None, None]
    return source.brightness(x - strength * ax - cx, y - strength * ay - cy)


def blur_and_bin(light: Tensor, fwhm: float, oversampling: int = 1) -> Tensor:
    """Convolve with a Gaussian PSF and average the samples of every pixel (the stamp is taken as periodic).

    Parameters
    ----------
    light : Tensor
        Samples ``(n, rows, columns)``.
    fwhm : float
        Full width at half maximum [sample].
    oversampling : int
        Samples a pixel, an axis.
    """
    n = light.shape[-1]
    distance = torch.arange(n, dtype=light.dtype, device=light.device)
    distance = torch.minimum(distance, n - distance)
    psf = torch.exp(-4 * math.log(2) * (distance / fwhm) ** 2)
    transfer = torch.fft.rfft(psf / psf.sum()).real
    full = torch.cat([transfer, transfer[1 : (n + 1) // 2].flip(0)])
    blurred = torch.fft.irfft2(torch.fft.rfft2(light) * full[:, None] * transfer, s=(n, n))
    side = n // oversampling
    return blurred.reshape(-1, side, oversampling, side, oversampling).mean((2, 4))
