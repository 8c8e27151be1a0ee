"""Share of the machine's own matrix-product rate in training and in sampling, network by network.

Operations are those of matrix products, convolutions and attention (`galdiff.nn.size`), two a multiply-add; a training
step takes three forward passes of them. The product that gives the rate is timed between the steps, so that whatever
else the machine does slows both.
"""

import time

import torch

from galdiff.diffusion import Denoiser, Objective, RectifiedFlow
from galdiff.nn import build_backbone
from galdiff.nn.size import network_size
from galdiff.randomness import Draws
from galdiff.schema.conditions import ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE

SCHEMA = ConditionSchema([Votes("votes", GZ2_TREE)])
CHANNELS, SIDE, BATCH, ROUNDS, MATRIX = 8, 8, 32, 6, 1024
NETWORKS = {
    "unet": {"kind": "unet", "widths": [64, 128]},
    "edm2": {"kind": "edm2", "widths": [64, 128]},
    "dit_tiny": {"kind": "dit", "patch": 1, "width": 192, "depth": 6, "heads": 3},
    # As many blocks as take a second: the share of a block is that of twelve.
    "dit_s_of_four_blocks": {"kind": "dit", "patch": 1, "width": 384, "depth": 4, "heads": 6},
    "dit_b_of_two_blocks": {"kind": "dit", "patch": 1, "width": 768, "depth": 2, "heads": 12},
}


def interleaved(*works):
    """Seconds of each of some works, the best of rounds in which each has its turn."""
    best = [float("inf")] * len(works)
    for r in range(ROUNDS + 1):
        for i, work in enumerate(works):
            begun = time.perf_counter()
            work()
            if r:  # the first round warms up
                best[i] = min(best[i], time.perf_counter() - begun)
    return best


class ShareOfMatmul:
    params = tuple(NETWORKS)
    param_names = ("network",)
    timeout = 300

    def setup(self, name):
        torch.manual_seed(0)
        spec = {**NETWORKS[name], "channels": CHANNELS}
        self.flops = BATCH * network_size(spec, SCHEMA, SIDE).flops
        self.denoiser = Denoiser(build_backbone(spec, SCHEMA), RectifiedFlow())
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), 1e-4, fused=True)
        self.objective, self.draws = Objective(), Draws(0, range(BATCH))
        self.x, self.condition = torch.randn(BATCH, CHANNELS, SIDE, SIDE), SCHEMA.ask(BATCH, {"votes": {"spiral": 0.9}})
        self.matrices = torch.randn(2, MATRIX, MATRIX)

    def step(self):
        loss = self.objective(self.denoiser, self.x, self.draws, condition=self.condition)
        self.optimizer.zero_grad(set_to_none=True)
        loss.per_sample.mean().backward()
        self.optimizer.step()

    @torch.no_grad()
    def denoise(self):
        self.denoiser(self.x, torch.tensor(0.5), self.condition)

    def product(self):
        self.matrices[0] @ self.matrices[1]

    def share(self, work, flops):
        product, seconds = interleaved(self.product, work)
        return flops / seconds / (2 * MATRIX**3 / product)

    def track_training(self, name):
        return self.share(self.step, 3 * self.flops)

    def track_sampling(self, name):
        return self.share(self.denoise, self.flops)

    track_training.unit = track_sampling.unit = "share"
