"""Science metrics of simulated galaxies."""

from galdiff.metrics import morphology, morphology_exact, physical_features, power_spectrum, radial_profile
from galdiff.simulate import simulate_galaxies

from .clock import best

IMAGES, FEW = 128, 10


class Metrics:
    def setup(self):
        self.images, _ = simulate_galaxies(IMAGES, seed=0, size=64)

    def track_physical_features(self):
        return IMAGES / best(lambda: physical_features(self.images), rounds=3)

    def track_morphology(self):
        return IMAGES / best(lambda: morphology(self.images), rounds=3)

    def track_morphology_against_statmorph(self):
        """How many times faster, in one run; statmorph measures the first ten."""
        ours = best(lambda: morphology(self.images), rounds=3) / IMAGES
        few = self.images[:FEW]
        return best(lambda: morphology_exact(few, scheduler="synchronous"), rounds=1) / FEW / ours

    def track_profile(self):
        return IMAGES / best(lambda: radial_profile(self.images), rounds=3)

    def track_spectrum(self):
        return IMAGES / best(lambda: power_spectrum(self.images), rounds=3)

    track_physical_features.unit = track_morphology.unit = track_profile.unit = track_spectrum.unit = "images/s"
    track_morphology_against_statmorph.unit = "times"
