"""Trained evaluators."""

from galdiff.judges.classifier import Classifier, auc

__all__ = ["Classifier", "auc"]
