"""Evaluators that are trained on real images, or fitted to single ones, and read on generated ones."""

from galdiff.judges.classes import class_figures, transfer_figures
from galdiff.judges.classifier import Classifier
from galdiff.judges.encoder import MorphologyEncoder
from galdiff.judges.scalars import ScalarJudge, recovery_figures
from galdiff.judges.sie import fit_sie
from galdiff.judges.votes import VoteHead, VoteJudge, vote_figures
from galdiff.metrics.calibration import auc

__all__ = [
    "Classifier",
    "MorphologyEncoder",
    "ScalarJudge",
    "VoteHead",
    "VoteJudge",
    "auc",
    "class_figures",
    "fit_sie",
    "recovery_figures",
    "transfer_figures",
    "vote_figures",
]
