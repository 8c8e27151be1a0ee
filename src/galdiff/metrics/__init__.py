"""Science metrics: arrays in, arrays out."""

from galdiff.metrics.calibration import auc, balanced_accuracy, calibration_error, calibration_floor
from galdiff.metrics.figure import Figure
from galdiff.metrics.frechet import Whitening, frechet_distance
from galdiff.metrics.lensing import arc_residual_spectrum, einstein_radius
from galdiff.metrics.morphology import FEATURES, PROTOCOL, SHAPE, SKY, morphology, physical_features
from galdiff.metrics.profiles import annulus_weights, radial_profile
from galdiff.metrics.recovery import recovery
from galdiff.metrics.spectra import high_frequency_power, power_spectrum
from galdiff.metrics.votes import dirichlet_multinomial_nll, vote_calibration

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "Figure",
    "Whitening",
    "annulus_weights",
    "arc_residual_spectrum",
    "auc",
    "balanced_accuracy",
    "calibration_error",
    "calibration_floor",
    "dirichlet_multinomial_nll",
    "einstein_radius",
    "frechet_distance",
    "high_frequency_power",
    "morphology",
    "physical_features",
    "power_spectrum",
    "radial_profile",
    "recovery",
    "vote_calibration",
]
