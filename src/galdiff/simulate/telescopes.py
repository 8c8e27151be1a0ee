"""What lenses are seen with: pixels, PSF, sky, exposures and their noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from galdiff.randomness import normal
from galdiff.simulate.counts import poisson

__all__ = ["TELESCOPES", "Telescope"]

BACKGROUND = 0.01  # noise of the generic telescope's sky [flux/pixel]


@dataclass(frozen=True)
class Telescope:
    """What a model is seen with.

    Attributes
    ----------
    size : int
        Side of the stamps [pixel].
    scale : float
        Pixel scale [arcsec/pixel].
    fwhm : float
        Full width at half maximum of the Gaussian PSF [arcsec].
    oversampling : int
        Samples a pixel, an axis.
    zero_point : float, optional
        AB magnitude of one electron a second; None for a generic telescope, which counts photons and knows no
        magnitudes.
    sky : float
        Brightness of the sky [mag/arcsec^2].
    read_noise : float
        Of an exposure [electron].
    exposure : float
        Time of an exposure [s].
    exposures : int
        How many are added.
    """

    size: int
    scale: float
    fwhm: float
    oversampling: int
    zero_point: float | None = None
    sky: float = 0.0
    read_noise: float = 0.0
    exposure: float = 0.0
    exposures: int = 0

    def rate(self, magnitude: float) -> float:
        """Electrons a second from a magnitude."""
        assert self.zero_point is not None  # the generic telescope has no magnitudes
        return float(10 ** (-0.4 * (magnitude - self.zero_point)))

    def sky_counts(self, time: Tensor) -> Tensor:
        """Mean counts of the sky a pixel; the generic telescope's have the noise that its model states."""
        if self.zero_point is None:
            return (BACKGROUND * time) ** 2
        return self.rate(self.sky) * self.scale**2 * time

    def observe(self, light: Tensor, time: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """Take pictures.

        Parameters
        ----------
        light : Tensor
            Float64 ``(n, size, size)`` [flux/pixel].
        time : Tensor
            Of all exposures together ``(n,)`` [s].
        seed : int
            Seed of the simulation.
        index : Tensor
            Global indices of the lenses, int64 ``(n,)``.

        Returns
        -------
        Tensor
            Counts of sky and lens, int64, by the generic telescope; else electrons a second less the sky's mean.
        """
        seconds, sky = time[:, None, None], self.sky_counts(time)[:, None, None]
        counts = poisson(light * seconds + sky, seed=seed, stream="photons", index=index)
        if self.zero_point is None:
            return counts
        noise = normal(seed, "noise", index, light.shape[1:], light.device)
        return (counts - sky + self.read_noise * self.exposures**0.5 * noise) / seconds

    def observe_compat(self, light: Tensor, time: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """Take pictures as DeepLenseSim does: Poisson counts drawn twice, or no noise and everything doubled."""
        if self.zero_point is not None:
            return 2 * light
        seconds = time[:, None, None]
        counts = poisson(light * seconds, seed=seed, stream="photons", index=index)
        background = BACKGROUND * seconds * normal(seed, "noise", index, light.shape[1:], light.device)
        return poisson((counts + background).clamp(min=0), seed=seed, stream="photons/again", index=index)


TELESCOPES = {
    "I": Telescope(150, 0.05, 0.087, 3),
    # Euclid Collaboration: Mellier et al. 2025 (A&A 697, A1) and Cropper et al. 2025 (A&A 697, A2).
    "II": Telescope(64, 0.101, 0.16, 4, 25.72, 22.3, 4.2, 566.0, 4),
    # The WFC3 instrument's handbook; drizzled pixels, two orbits.
    "III": Telescope(64, 0.08, 0.15, 3, 25.96, 22.3, 4.0, 5400.0, 1),
}
"""What every model is seen with."""
