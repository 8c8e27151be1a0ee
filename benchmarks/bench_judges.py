"""Judges: training and reading them, and fits of lenses."""

import numpy as np

from galdiff.judges import Classifier, MorphologyEncoder, VoteJudge, fit_sie
from galdiff.metrics import einstein_radius, recovery
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate import simulate_galaxies, simulate_lenses

from .clock import best

IMAGES = 256


class Judges:
    """Rates of training, in images seen, on cutouts of 64 pixels in three bands."""

    def setup(self):
        self.images, truth = simulate_galaxies(IMAGES, seed=0, size=64)
        self.labels = truth["has_spiral"].to_numpy().astype(np.int64)
        self.votes = np.ones((IMAGES, len(GZ2_TREE.answers)), dtype=np.float32)
        self.known = np.ones((IMAGES, len(GZ2_TREE.questions)), dtype=bool)
        self.encoder = MorphologyEncoder(3)

    def track_classifier(self):
        return IMAGES / best(lambda: Classifier(3, 2).fit(self.images, self.labels, seen=IMAGES), rounds=3)

    def track_votes(self):
        judge = VoteJudge(3, GZ2_TREE)
        return IMAGES / best(lambda: judge.fit(self.images, self.votes, self.known, seen=IMAGES), rounds=3)

    def track_encoder(self):
        return IMAGES / best(lambda: MorphologyEncoder(3).fit(self.images, seen=IMAGES), rounds=3)

    def track_features(self):
        return IMAGES / best(lambda: self.encoder.features(self.images), rounds=3)

    track_classifier.unit = track_votes.unit = track_encoder.unit = track_features.unit = "images/s"


class Lenses:
    def setup(self):
        images, _ = simulate_lenses(64, seed=0, model="II")
        self.images = images[:, None]

    def track_ring(self):
        return 64 / best(lambda: einstein_radius(self.images, pixel_scale=0.101), rounds=3)

    def track_fit(self):
        return 2 / best(lambda: fit_sie(self.images[:2], pixel_scale=0.101, psf_fwhm=0.16), rounds=1)

    def track_recovery(self):
        x = np.random.default_rng(0).normal(size=1000)
        return 1 / best(lambda: recovery(x, x), rounds=3)

    track_ring.unit = track_fit.unit = "lenses/s"
    track_recovery.unit = "1/s"
