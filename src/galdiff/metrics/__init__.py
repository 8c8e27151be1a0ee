"""Science metrics: arrays in, arrays out."""

from galdiff.metrics.features import SPACES, FeatureSpace, feature_space
from galdiff.metrics.figure import Figure, judge
from galdiff.metrics.frechet import Whitening, frechet_distance
from galdiff.metrics.morphology import FEATURES, PROTOCOL, SHAPE, SKY, morphology, physical_features
from galdiff.metrics.profiles import annulus_weights, radial_profile
from galdiff.metrics.rendering import Rendering, lupton_rgb
from galdiff.metrics.spectra import high_frequency_power, power_spectrum

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "SPACES",
    "FeatureSpace",
    "Figure",
    "Rendering",
    "Whitening",
    "annulus_weights",
    "feature_space",
    "frechet_distance",
    "high_frequency_power",
    "judge",
    "lupton_rgb",
    "morphology",
    "physical_features",
    "power_spectrum",
    "radial_profile",
]
