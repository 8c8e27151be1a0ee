"""Counter-based normal numbers, beside torch's stateful ones."""

import torch

from galdiff.randomness import normal

from .clock import best

BATCH, SHAPE = 64, (4, 16, 16)


class Normal:
    def setup(self):
        self.index = torch.arange(BATCH)

    def track_time_over_torch(self):
        ours = best(lambda: normal(0, "latent", self.index, SHAPE), calls=5)
        return ours / best(lambda: torch.randn(BATCH, *SHAPE), calls=5)

    track_time_over_torch.unit = "ratio"

    def track_numbers_per_second(self):
        return BATCH * 4 * 16 * 16 / best(lambda: normal(0, "latent", self.index, SHAPE), calls=5)

    track_numbers_per_second.unit = "1/s"
