"""Morphology by statmorph (Rodriguez-Gomez et al. 2019, MNRAS 483, 4140): exact, and a second or so an object.

It is what `galdiff.metrics.morphology` is compared with; both measure the same light, mask and segmentation.
"""

from __future__ import annotations

import warnings
from typing import Any

import dask
import numpy as np
import xarray as xr

from galdiff.errors import ResourceError
from galdiff.metrics.source import Sources

__all__ = ["morphology_exact"]

_NAMES = {
    "center_x": "xc_asymmetry",
    "center_y": "yc_asymmetry",
    "ellipticity": "ellipticity_asymmetry",
    "orientation": "orientation_asymmetry",
    "petrosian_radius": "rpetro_circ",
    "petrosian_radius_elliptical": "rpetro_ellip",
    "r20": "r20",
    "r50": "r50",
    "r80": "r80",
    "r50_elliptical": "rhalf_ellip",
    "flux": "flux_circ",
    "gini": "gini",
    "m20": "m20",
    "gini_m20_bulge": "gini_m20_bulge",
    "gini_m20_merger": "gini_m20_merger",
    "concentration": "concentration",
    "asymmetry": "asymmetry",
    "rms_asymmetry2": "rms_asymmetry2",
    "smoothness": "smoothness",
    "sersic_index": "sersic_n",
    "sersic_radius": "sersic_rhalf",
    "sersic_ellipticity": "sersic_ellip",
}
_INVALID = -99.0


def morphology_exact(
    images: Any,
    *,
    segmentation: Any = None,
    psf_fwhm: float | None = None,
    gain: float | None = None,
    subtract_sky: bool = True,
    scheduler: str | None = None,
) -> xr.Dataset:
    """Measure every image with statmorph, one object a Dask task.

    Parameters
    ----------
    images, segmentation, psf_fwhm, gain, subtract_sky
        As `galdiff.metrics.morphology` takes them.
    scheduler : str, optional
        Of Dask: ``"processes"``, ``"threads"``, ``"synchronous"``; by default the active client or threads.

    Returns
    -------
    xarray.Dataset
        The variables of `galdiff.metrics.morphology` that statmorph has, in pixels, under the same names, NaN where the
        flag is 2; ``r50_elliptical`` is its ``rhalf_ellip``, half of the light within its largest isophote.

    Raises
    ------
    ResourceError
        Without statmorph. An object on which it fails is not an error: its flag is 2.
    """
    try:
        import statmorph
    except ImportError:
        raise ResourceError("statmorph is not installed", remedy="Install galdiff[morphology]") from None
    sources = Sources.find(images, segmentation=segmentation, subtract_sky=subtract_sky)
    light, noise = sources.light.double().cpu().numpy(), sources.noise.double().cpu().numpy()
    labels = (sources.object.int() + 2 * sources.masked.int()).cpu().numpy()
    psf = None if psf_fwhm is None else _gaussian(psf_fwhm)
    tasks = [dask.delayed(_measure)(*row, gain, psf) for row in zip(light, labels, noise, strict=True)]
    rows = np.asarray(dask.compute(*tasks, scheduler=scheduler)).reshape(-1, len(_NAMES) + 2)
    data: dict[str, Any] = {name: ("sample", rows[:, i]) for i, name in enumerate(_NAMES)}
    data["flag"], data["sersic_flag"] = (("sample", rows[:, i].astype(np.int8)) for i in (-2, -1))
    return xr.Dataset(data, attrs={"protocol": f"statmorph {statmorph.__version__}"})


def _measure(light: np.ndarray, labels: np.ndarray, noise: float, gain: float | None, psf: Any) -> list[float]:
    """One object's values, then its flag and that of its Sérsic fit."""
    import statmorph

    bad = [float("nan")] * len(_NAMES) + [2.0, 2.0]
    if not (labels == 1).any():
        return bad
    # Without a gain every pixel weighs alike; statmorph asks for a map, and divides by it.
    uniform = np.full_like(light, noise if noise > 0 else 1.0)
    weights = {"weightmap": uniform} if gain is None else {"gain": gain}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = statmorph.SourceMorphology(light.copy(), labels.copy(), 1, psf=psf, **weights)
            values = [float(found[name]) for name in _NAMES.values()]
    except Exception:  # whatever it stumbles over, this object has no value and the next one may
        return bad
    flags = [float(min(found.flag, 2)), float(min(found.flag_sersic, 2))]
    values = [v if np.isfinite(v) and v != _INVALID and flags[0] < 2 else float("nan") for v in values]
    if flags[1] == 2:
        values = [float("nan") if name.startswith("sersic") else v for name, v in zip(_NAMES, values, strict=True)]
    return values + flags


def _gaussian(fwhm: float) -> np.ndarray:
    sigma = fwhm / np.sqrt(8 * np.log(2))
    half = int(np.ceil(4 * sigma))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    psf = np.exp(-0.5 * (x**2 + y**2) / sigma**2)
    return psf / psf.sum()
