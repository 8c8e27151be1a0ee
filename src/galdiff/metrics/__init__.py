"""Science metrics: arrays in, arrays out."""

from galdiff.metrics.frechet import Whitening, frechet_distance
from galdiff.metrics.isophotes import flux_centroid
from galdiff.metrics.memorisation import memorisation
from galdiff.metrics.morphology import FEATURES, PROTOCOL, SHAPE, SKY, morphology, physical_features
from galdiff.metrics.neighbours import nearest_neighbours
from galdiff.metrics.overlap import annulus_weights
from galdiff.metrics.profiles import radial_profile, stacked_profile
from galdiff.metrics.residuals import residual
from galdiff.metrics.spectra import high_frequency_power, power_spectrum

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "Whitening",
    "annulus_weights",
    "flux_centroid",
    "frechet_distance",
    "high_frequency_power",
    "memorisation",
    "morphology",
    "nearest_neighbours",
    "physical_features",
    "power_spectrum",
    "radial_profile",
    "residual",
    "stacked_profile",
]
