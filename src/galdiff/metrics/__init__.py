"""Science metrics: arrays in, arrays out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from galdiff.metrics.calibration import auc, balanced_accuracy, calibration_error, calibration_floor
from galdiff.metrics.conditional import class_distances, sliding_distances
from galdiff.metrics.exact import morphology_exact
from galdiff.metrics.features import SPACES, FeatureSpace, feature_space
from galdiff.metrics.figure import Figure, judge
from galdiff.metrics.frechet import FrechetFit, Whitening, frechet_distance, frechet_infinity
from galdiff.metrics.isophotes import flux_centroid
from galdiff.metrics.kernel import GaussianKernel, KernelEstimate, kernel_distance, polynomial_kernel, squared_mmd
from galdiff.metrics.lensing import arc_residual_spectrum, einstein_radius
from galdiff.metrics.manifold import Fidelity, authentic_share, precision_recall
from galdiff.metrics.memorisation import memorisation
from galdiff.metrics.moments import Moments
from galdiff.metrics.morphology import flagged_fraction, morphology
from galdiff.metrics.neighbours import nearest_neighbours
from galdiff.metrics.outofcore import features_of, moments_of
from galdiff.metrics.overlap import annulus_weights
from galdiff.metrics.physical import FEATURES, PROTOCOL, SHAPE, SKY, physical_features, physical_morphology
from galdiff.metrics.profiles import radial_profile, stacked_profile
from galdiff.metrics.reconstruction import bias_and_scatter, peak_signal_to_noise, reconstruction, structural_similarity
from galdiff.metrics.recovery import recovery
from galdiff.metrics.rendering import Rendering, lupton_rgb
from galdiff.metrics.residuals import residual
from galdiff.metrics.segmentation import segment
from galdiff.metrics.spectra import high_frequency_power, power_spectrum
from galdiff.metrics.transport import energy_distance, sliced_wasserstein, statistic_distances, wasserstein_distance
from galdiff.metrics.two_sample import adjusted_p, two_sample_test
from galdiff.metrics.votes import dirichlet_multinomial_nll, vote_calibration

__all__ = [
    "FEATURES",
    "PROTOCOL",
    "SHAPE",
    "SKY",
    "SPACES",
    "AuthenticShare",
    "ClassDistances",
    "EnergyDistance",
    "FeatureSpace",
    "Fidelity",
    "Figure",
    "FrechetDistance",
    "FrechetFit",
    "FrechetInfinity",
    "GaussianKernel",
    "KernelDistance",
    "KernelEstimate",
    "Moments",
    "PrecisionRecall",
    "Rendering",
    "SlicedWasserstein",
    "SlidingDistances",
    "SquaredMMD",
    "StatisticDistances",
    "WassersteinDistance",
    "Whitening",
    "adjusted_p",
    "annulus_weights",
    "arc_residual_spectrum",
    "auc",
    "authentic_share",
    "balanced_accuracy",
    "bias_and_scatter",
    "calibration_error",
    "calibration_floor",
    "class_distances",
    "dirichlet_multinomial_nll",
    "einstein_radius",
    "energy_distance",
    "feature_space",
    "features_of",
    "flagged_fraction",
    "flux_centroid",
    "frechet_distance",
    "frechet_infinity",
    "high_frequency_power",
    "judge",
    "kernel_distance",
    "lupton_rgb",
    "memorisation",
    "moments_of",
    "morphology",
    "morphology_exact",
    "nearest_neighbours",
    "peak_signal_to_noise",
    "physical_features",
    "physical_morphology",
    "polynomial_kernel",
    "power_spectrum",
    "precision_recall",
    "radial_profile",
    "reconstruction",
    "recovery",
    "residual",
    "segment",
    "sliced_wasserstein",
    "sliding_distances",
    "squared_mmd",
    "stacked_profile",
    "statistic_distances",
    "structural_similarity",
    "two_sample_test",
    "vote_calibration",
    "wasserstein_distance",
]


if TYPE_CHECKING:
    from galdiff.metrics.streaming import (
        AuthenticShare,
        ClassDistances,
        EnergyDistance,
        FrechetDistance,
        FrechetInfinity,
        KernelDistance,
        PrecisionRecall,
        SlicedWasserstein,
        SlidingDistances,
        SquaredMMD,
        StatisticDistances,
        WassersteinDistance,
    )
# Importing torchmetrics takes as long as all else.
_STREAMING = {
    "AuthenticShare",
    "ClassDistances",
    "EnergyDistance",
    "FrechetDistance",
    "FrechetInfinity",
    "KernelDistance",
    "PrecisionRecall",
    "SlicedWasserstein",
    "SlidingDistances",
    "SquaredMMD",
    "StatisticDistances",
    "WassersteinDistance",
}


def __getattr__(name: str) -> Any:
    if name not in _STREAMING:
        raise AttributeError(f"module 'galdiff.metrics' has no attribute '{name}'")
    return globals().setdefault(name, getattr(importlib.import_module("galdiff.metrics.streaming"), name))
