"""Evaluators that are trained on real images and read on generated ones."""

from galdiff.judges.classes import class_figures, transfer_figures
from galdiff.judges.classifier import Classifier
from galdiff.judges.votes import VoteHead, dirichlet_multinomial_nll, vote_calibration, vote_figures
from galdiff.metrics.calibration import auc

__all__ = [
    "Classifier",
    "VoteHead",
    "auc",
    "class_figures",
    "dirichlet_multinomial_nll",
    "transfer_figures",
    "vote_calibration",
    "vote_figures",
]
