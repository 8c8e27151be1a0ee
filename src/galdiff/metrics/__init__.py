"""Science metrics: arrays in, arrays out."""

from galdiff.metrics.exact import morphology_exact
from galdiff.metrics.frechet import Whitening, frechet_distance
from galdiff.metrics.morphology import flagged_fraction, morphology
from galdiff.metrics.physical import FEATURES, PROTOCOL, SHAPE, SKY, physical_features, physical_morphology
from galdiff.metrics.profiles import annulus_weights, radial_profile
from galdiff.metrics.segmentation import segment
from galdiff.metrics.spectra import high_frequency_power, power_spectrum

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "Whitening",
    "annulus_weights",
    "flagged_fraction",
    "frechet_distance",
    "high_frequency_power",
    "morphology",
    "morphology_exact",
    "physical_features",
    "physical_morphology",
    "power_spectrum",
    "radial_profile",
    "segment",
]
