r"""Rendering: pixel values of any unit and number of bands as 8-bit color, the same way for every image.

Networks trained on photographs, and eyes, need three bands of 8 bits. A rendering is fixed once, on real images, and
applied to all: scaling every image by its own range would hide what differs between populations.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Rendering", "lupton_rgb"]

_SAMPLE = 1024


@dataclass(frozen=True)
class Rendering:
    """How pixel values become red, green and blue.

    Attributes
    ----------
    mix : tuple of tuple of float
        Red, green and blue as sums of bands, ``(3, band)``.
    sky, high : tuple of float or None
        Levels of the three that are black and of full brightness; None for display units, which are shown as they are.
    q : float
        Softening of `lupton_rgb`.
    """

    mix: tuple[tuple[float, ...], ...]
    sky: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    q: float = 10.0

    @classmethod
    def fit(cls, images: np.ndarray, unit: str) -> Rendering:
        """Fix a rendering.

        Display units are shown as they are, bands red, green, blue. Others, whose bands go from blue to red, are
        shown by `lupton_rgb` with one scaling for all images, so that brightness can be compared: one band is gray,
        of two green is the mean, of more than three the last, middle and first are red, green and blue.

        Parameters
        ----------
        images : numpy.ndarray
            Real pixel values ``(n, band, y, x)``; the first 1024 are looked at.
        unit : str
            "display", or any other.
        """
        bands = images.shape[1]
        unity = np.eye(bands)
        if unit == "display":
            mix = unity[[0, 0, 0] if bands == 1 else [0, 1, min(bands, 3) - 1]]
            return cls(tuple(map(tuple, mix.tolist())))
        mix = np.stack([unity[-1], unity.mean(axis=0) if bands == 2 else unity[bands // 2], unity[0]])
        sky, high = _levels(_mixed(images[:_SAMPLE], mix))
        return cls(tuple(map(tuple, mix.tolist())), tuple(sky.tolist()), tuple(high.tolist()))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Render pixel values ``(n, band, y, x)`` as uint8 ``(n, y, x, 3)``, clipped, rounded half to even."""
        x = _mixed(images, np.asarray(self.mix))
        if self.sky is None or self.high is None:
            return (np.clip(x, 0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
        return lupton_rgb(x, sky=np.asarray(self.sky), high=np.asarray(self.high), q=self.q)

    def __str__(self) -> str:
        """Say everything that determines the rendering, for a protocol's name."""
        mix = "; ".join(" ".join(f"{weight:g}" for weight in row) for row in self.mix)
        if self.sky is None or self.high is None:
            return f"display units, RGB = [{mix}] bands"
        sky, high = (" ".join(f"{level:.6g}" for level in levels) for levels in (self.sky, self.high))
        return f"asinh q={self.q:g}, RGB = [{mix}] bands, sky {sky}, high {high}"

    def to_dict(self) -> dict[str, Any]:
        """Return its JSON."""
        return asdict(self)


def lupton_rgb(
    images: np.ndarray, *, sky: np.ndarray | None = None, high: np.ndarray | None = None, q: float = 10.0
) -> np.ndarray:
    r"""Render three bands so that color does not depend on brightness (Lupton et al. 2004, PASP 116, 133).

    With the bands freed of their sky and divided by their bright end, and I their mean, red is
    :math:`r f(I) / I` (their Equation 2) with :math:`f(I) = \mathrm{asinh}(q I) / \mathrm{asinh}(q)`; where the
    brightest of the three exceeds one, all three are divided by it, which keeps the color. A picture for eyes: it
    cannot be undone, and nothing is trained on it.

    Parameters
    ----------
    images : numpy.ndarray
        Red, green, blue in any unit, ``(n, 3, y, x)``.
    sky : numpy.ndarray, optional
        Level shown as black, one a band; by default the medians over all images.
    high : numpy.ndarray, optional
        Level shown at full brightness, one a band; by default the 99.8th percentiles, so that mean colors are gray.
    q : float
        Larger shows fainter light.

    Returns
    -------
    numpy.ndarray
        uint8 ``(n, y, x, 3)``.
    """
    x = np.asarray(images, dtype=np.float64)
    if sky is None or high is None:
        levels = _levels(x)
        sky, high = levels[0] if sky is None else sky, levels[1] if high is None else high
    low, top = (np.asarray(level, dtype=np.float64) for level in (sky, high))
    x = (x - low[:, None, None]) / np.maximum(top - low, 1e-30)[:, None, None]
    intensity = x.mean(axis=1, keepdims=True).clip(min=0)
    shown = np.arcsinh(q * intensity) / np.arcsinh(q)
    x = x.clip(min=0) * np.divide(shown, intensity, out=np.zeros_like(shown), where=intensity > 0)
    x /= x.max(axis=1, keepdims=True).clip(min=1)
    return (x * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def _levels(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians, and 99.8th percentiles, of three bands over all images."""
    return np.median(x, axis=(0, 2, 3)), np.quantile(x, 0.998, axis=(0, 2, 3))


def _mixed(images: np.ndarray, mix: np.ndarray) -> np.ndarray:
    return np.einsum("cb,nbyx->ncyx", mix, np.asarray(images, dtype=np.float64))
