"""What images are: bands, size, unit, calibration, and the stretch between pixel values and networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from galdiff.data.stretch import Stretch

__all__ = ["CALIBRATION", "ImageFormat"]

CALIBRATION = ("zero_point", "psf_fwhm", "pixel_scale")
"""What a dataset, an `ImageFormat` and the attributes of samples call the calibration of physical units."""


@dataclass(frozen=True)
class ImageFormat:
    """What the images are: everything between a file's pixel values and the network.

    Attributes
    ----------
    bands : tuple of str
        Names of the bands.
    size : int
        Side of the cutouts in pixels.
    unit : str
        "display" (8-bit images as value / 255) or a FITS unit.
    stretch : Stretch
        The invertible map from pixel values to the network's range.
    zero_point, psf_fwhm : tuple of float, optional
        Magnitude of a pixel value of 1 and width of the point-spread function [arcsec], band by band, where known.
    pixel_scale : float, optional
        Side of a pixel [arcsec], where known.
    """

    bands: tuple[str, ...]
    size: int
    unit: str
    stretch: Stretch
    zero_point: tuple[float, ...] | None = None
    psf_fwhm: tuple[float, ...] | None = None
    pixel_scale: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description; `from_dict` is its inverse."""
        stretch = self.stretch.to_dict()
        described = {"bands": list(self.bands), "size": self.size, "unit": self.unit, "stretch": stretch}
        return {**described, **self.calibration()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ImageFormat:
        """Build from `to_dict`'s description."""
        stretch = Stretch.from_dict(fields["stretch"])
        known = {name: fields[name] for name in CALIBRATION if name in fields}
        calibration: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in known.items()}
        return cls(tuple(fields["bands"]), int(fields["size"]), fields["unit"], stretch, **calibration)

    def calibration(self) -> dict[str, Any]:
        """Return what is known of zero point, PSF and pixel scale, as JSON."""
        known = {name: getattr(self, name) for name in CALIBRATION}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in known.items() if v is not None}

    def pixels(self, x: Tensor) -> Tensor:
        """Map stretched images to pixel values; display values are those that an 8-bit file can hold."""
        values = self.stretch.inverse(x)
        return values.clamp(0.0, 1.0) if self.unit == "display" else values
