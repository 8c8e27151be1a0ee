"""Science metrics: arrays in, arrays out."""

from galdiff.metrics.frechet import Whitening, frechet_distance
from galdiff.metrics.morphology import FEATURES, PROTOCOL, SHAPE, SKY, morphology, physical_features
from galdiff.metrics.profiles import annulus_weights, radial_profile
from galdiff.metrics.reconstruction import (
    bias_and_scatter,
    peak_signal_to_noise,
    reconstruction,
    structural_similarity,
)
from galdiff.metrics.spectra import high_frequency_power, power_spectrum

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "Whitening",
    "annulus_weights",
    "bias_and_scatter",
    "frechet_distance",
    "high_frequency_power",
    "morphology",
    "peak_signal_to_noise",
    "physical_features",
    "power_spectrum",
    "radial_profile",
    "reconstruction",
    "structural_similarity",
]
