r"""The geometry of a gravitational lens: distances, Einstein radii, ellipticities.

A point of mass M has the Einstein radius

.. math:: \theta_E = \sqrt{\frac{4 G M}{c^2} \frac{D_{ls}}{D_l D_s}}

with angular diameter distances (Schneider, Ehlers & Falco 1992, eq. 2.6). An ellipticity is
:math:`(e_1, e_2) = \frac{1 - q}{1 + q} (\cos 2\varphi, \sin 2\varphi)`, as lenstronomy has it (Birrer & Amara 2018).

Deflections of single lenses come from `caustics <https://caustics.readthedocs.io>`_ (Stone et al. 2024, JOSS 9, 7081).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

from galdiff.errors import ResourceError

__all__ = ["Distances", "axis_ratio", "caustics_functions", "distances", "restated"]

SOFTENING = 1e-9  # [arcsec]: a ray through the very center of a lens goes straight on
LENS_REDSHIFT, SOURCE_REDSHIFT = 0.5, 1.0
STATED_REDSHIFT = 2.5
ARCSEC = math.pi / 180 / 3600
FOUR_G_OVER_C2 = 1.9141664e-19  # [Mpc / solar mass]


@dataclass(frozen=True)
class Distances:
    """Distances to the lens, to the source and between them [Mpc].

    Attributes
    ----------
    lens, source, between : float
        Angular diameter distances.
    critical_density : float
        Critical density of the universe at the lens [solar mass / Mpc^3].
    """

    lens: float
    source: float
    between: float
    critical_density: float

    @property
    def radius_unit(self) -> float:
        """Einstein radius of a point of one solar mass [arcsec]; radii grow with the square root of the mass."""
        return math.sqrt(FOUR_G_OVER_C2 * self.between / (self.lens * self.source)) / ARCSEC

    def einstein_radius(self, mass: float) -> float:
        """Einstein radius of a point mass [arcsec].

        Parameters
        ----------
        mass : float
            Mass [solar mass].
        """
        return self.radius_unit * math.sqrt(mass)


@lru_cache(maxsize=2)
def distances(*, compat: bool = False) -> Distances:
    """Return the distances of a lens at z = 0.5 and a source at z = 1 in flat LCDM with H0 = 70 and Om0 = 0.3.

    Parameters
    ----------
    compat : bool
        Luminosity distances, and their difference, in place of angular diameter distances: DeepLenseSim has them, and
        with them an Einstein radius 0.77 of what the mass says.
    """
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
    density = float(cosmology.critical_density(LENS_REDSHIFT).to_value("Msun / Mpc3"))
    if compat:
        near, far = (float(cosmology.luminosity_distance(z).value) for z in (LENS_REDSHIFT, SOURCE_REDSHIFT))
        return Distances(near, far, far - near, density)
    near, far = (float(cosmology.angular_diameter_distance(z).value) for z in (LENS_REDSHIFT, SOURCE_REDSHIFT))
    # Comoving distances add up where space is flat.
    return Distances(near, far, far - near * (1 + LENS_REDSHIFT) / (1 + SOURCE_REDSHIFT), density)


@lru_cache(maxsize=1)
def restated() -> float:
    """Return by how much DeepLenseSim's Model II weakens every deflection, 0.634.

    It declares its deflections to be those of a source at z = 2.5 (lenstronomy's ``z_source_convention``), in the
    cosmology of pyHalo, and lenstronomy restates them for the source at z = 1.
    """
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=69.7, Om0=0.2825, Ob0=0.0459)
    near, source, far = (
        float(cosmology.comoving_distance(z).value) for z in (LENS_REDSHIFT, SOURCE_REDSHIFT, STATED_REDSHIFT)
    )
    return (1 - near / source) / (1 - near / far)


def axis_ratio(e1: float, e2: float) -> tuple[float, float]:
    """Turn an ellipticity into the axis ratio q and the angle of the major axis [radian]."""
    e = math.hypot(e1, e2)
    return (1 - e) / (1 + e), math.atan2(e2, e1) / 2


def caustics_functions() -> ModuleType:
    """Import the functions of caustics.

    Raises
    ------
    ResourceError
        Where caustics is not installed.
    """
    try:
        return importlib.import_module("caustics.func")
    except ModuleNotFoundError as error:
        raise ResourceError(
            "lenses are simulated with caustics, which is not installed",
            remedy='Install it: pip install "galdiff[lenses]"',
        ) from error
