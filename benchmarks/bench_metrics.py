"""Science metrics of simulated galaxies."""

from galdiff.metrics import physical_features, power_spectrum, radial_profile
from galdiff.simulate import simulate_galaxies

from .clock import best

IMAGES = 128


class Metrics:
    def setup(self):
        self.images, _ = simulate_galaxies(IMAGES, seed=0, size=64)

    def track_morphology(self):
        return IMAGES / best(lambda: physical_features(self.images), rounds=3)

    def track_profile(self):
        return IMAGES / best(lambda: radial_profile(self.images), rounds=3)

    def track_spectrum(self):
        return IMAGES / best(lambda: power_spectrum(self.images), rounds=3)

    track_morphology.unit = track_profile.unit = track_spectrum.unit = "images/s"
