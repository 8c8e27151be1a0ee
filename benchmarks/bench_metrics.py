"""Science metrics of simulated galaxies, and their curves against the loops of photutils and powerbox in one run."""

import warnings
from functools import partial

import numpy as np

from galdiff.metrics import (
    morphology,
    morphology_exact,
    nearest_neighbours,
    physical_features,
    power_spectrum,
    radial_profile,
    residual,
)
from galdiff.metrics.neighbours import pose
from galdiff.simulate import simulate_galaxies

from .clock import best, processor_time

IMAGES, EVERY, TURNS = 512, 16, 4
CUTOUTS, LOOP, SIZE = 10_000, 50, 64
SAMPLES, TRAINING, FEW = 100, 10_000, 1_000


class Metrics:
    timeout = 600

    def setup(self):
        self.images, _ = simulate_galaxies(IMAGES, seed=0, size=64)

    def track_physical_features(self):
        return IMAGES / best(lambda: physical_features(self.images), rounds=3)

    def track_morphology(self):
        return IMAGES / best(lambda: morphology(self.images), rounds=3)

    def track_morphology_against_statmorph(self):
        """How many times less processor time an image, in turns; statmorph measures a few from all over the sample.

        Single objects keep it for half of the mean time or for twice as long, so that the first few say little.
        """
        ours, theirs, few = 0.0, 0.0, self.images[::EVERY]
        for part in np.split(few, TURNS):
            ours += processor_time(lambda: morphology(self.images), rounds=1)
            exact = partial(morphology_exact, part, scheduler="synchronous")
            theirs += processor_time(exact, rounds=1)
        return theirs / len(few) / (ours / TURNS / IMAGES)

    def track_profile(self):
        return IMAGES / best(lambda: radial_profile(self.images), rounds=3)

    def track_spectrum(self):
        return IMAGES / best(lambda: power_spectrum(self.images), rounds=3)

    def track_residual(self):
        return IMAGES / best(lambda: residual(self.images), rounds=3)

    track_physical_features.unit = track_morphology.unit = track_profile.unit = track_spectrum.unit = "images/s"
    track_residual.unit = "images/s"
    track_morphology_against_statmorph.unit = "times"


class AgainstLoops:
    """How many times less processor time 10,000 cutouts of 64 px take; the loops are measured on 50 of them."""

    timeout = 600

    def setup(self):
        from photutils.profiles import RadialProfile
        from powerbox import get_power

        rng = np.random.default_rng(0)
        self.images = rng.normal(size=(CUTOUTS, 1, SIZE, SIZE)).astype(np.float32)
        self.centers = (SIZE - 1) / 2 + rng.uniform(-1, 1, (CUTOUTS, 2))
        edges = np.arange(SIZE // 2 + 1)

        def profiles(centers):
            for image, center in zip(self.images[:LOOP, 0], centers, strict=True):
                _ = RadialProfile(image, center[::-1], edges, method="exact").profile

        def spectra():
            for image in self.images[:LOOP, 0]:
                get_power(image, [SIZE, SIZE], bins_upto_boxlen=True)

        self.profiles, self.spectra = profiles, spectra

    def ratio(self, loop, batch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs, ours = (processor_time(work, rounds=3) for work in (loop, batch))
        return theirs / LOOP / (ours / CUTOUTS)

    def track_profile(self):
        middle = np.full((LOOP, 2), (SIZE - 1) / 2)
        return self.ratio(lambda: self.profiles(middle), lambda: radial_profile(self.images))

    def track_profile_around_other_centers(self):
        centers = self.centers
        return self.ratio(lambda: self.profiles(centers[:LOOP]), lambda: radial_profile(self.images, center=centers))

    def track_spectrum(self):
        return self.ratio(self.spectra, lambda: power_spectrum(self.images))

    def track_profile_and_spectrum(self):
        middle = np.full((LOOP, 2), (SIZE - 1) / 2)
        return self.ratio(
            lambda: (self.profiles(middle), self.spectra()),
            lambda: (radial_profile(self.images), power_spectrum(self.images)),
        )


class Memorisation:
    """Samples against training images of 64 px and three bands: turned, flipped and shifted copies with noise."""

    timeout = 600

    def setup(self):
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:SIZE, :SIZE]
        self.training = np.empty((TRAINING, 3, SIZE, SIZE), np.float16)
        for part in np.split(self.training, TRAINING // 500):
            part[:] = 0.05 * rng.standard_normal(part.shape, np.float32)
            for _ in range(4):
                at, width = rng.normal(SIZE / 2, SIZE / 16, (2, 500, 1, 1)), rng.uniform(1.5, 8, (500, 1, 1))
                blob = np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / width**2)
                part += (blob[:, None] * rng.uniform(0.3, 1, (500, 3, 1, 1))).astype(np.float16)
        self.rows = rng.choice(TRAINING, SAMPLES, replace=False)
        turns, shifts = rng.integers(0, 8, SAMPLES), rng.integers(-2, 3, (SAMPLES, 2))
        turned = [pose(self.training[[r]], t).numpy()[0] for r, t in zip(self.rows, turns, strict=True)]
        copies = np.stack([np.roll(image, by, (1, 2)) for image, by in zip(turned, shifts, strict=True)])
        self.copies = copies + 0.05 * rng.standard_normal(copies.shape, np.float32)

    def track_seconds(self):
        """Of a processor, 1,000 samples against 100,000 images, from above.

        What is spent on a training image counts by the pair.
        """
        few, whole = (
            processor_time(lambda n=n: nearest_neighbours(self.copies, self.training[:n]), rounds=2)
            for n in (FEW, TRAINING)
        )
        pair = (whole - few) / (SAMPLES * (TRAINING - FEW))
        return 1e8 * pair + 1000 * (whole / SAMPLES - pair * TRAINING)

    def track_recall(self):
        found = nearest_neighbours(self.copies, self.training)["index"].to_numpy()[:, 0]
        return float((found == self.rows).mean())

    track_seconds.unit, track_recall.unit = "s", "share"
