"""The quickstart's denoiser: a training step, and what sampling takes outside of the network."""

import time

import torch

from galdiff.diffusion import ClassifierFree, Denoiser, Objective, RectifiedFlow, build_sampler
from galdiff.nn import UNet
from galdiff.randomness import Draws
from galdiff.schema.conditions import ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE

from .clock import best, seconds_in

SCHEMA = ConditionSchema([Votes("votes", GZ2_TREE)])
LATENT, BATCH = (8, 8, 8), 32


def shipped_unet():
    torch.manual_seed(0)
    return UNet(LATENT[0], SCHEMA, widths=(64, 128), blocks=1)


class Training:
    def setup(self):
        self.denoiser = Denoiser(shipped_unet(), RectifiedFlow(), prediction="flow")
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), 1e-4, fused=True)
        self.objective, self.draws = Objective(), Draws(0, range(BATCH))
        self.x, self.condition = torch.randn(BATCH, *LATENT), SCHEMA.ask(BATCH, {"votes": {"spiral": 0.9}})

    def step(self):
        loss = self.objective(self.denoiser, self.x, self.draws, condition=self.condition)
        self.optimizer.zero_grad(set_to_none=True)
        loss.per_sample.mean().backward()
        self.optimizer.step()

    def track_images_per_second(self):
        return BATCH / best(self.step)

    track_images_per_second.unit = "images/s"


class Sampling:
    params = ("heun", "dpmpp_2m", "unipc", "euler")
    param_names = ("sampler",)

    def setup(self, name):
        denoiser = ClassifierFree(Denoiser(shipped_unet(), RectifiedFlow(), prediction="flow"), 1.5)
        self.sampler = build_sampler(name, denoiser, steps=6)
        self.noise, self.condition = torch.randn(BATCH, *LATENT), SCHEMA.ask(BATCH, {"votes": {"spiral": 0.9}})

    def track_share_outside_network(self, name):
        shares = []
        for _ in range(3):
            with torch.no_grad(), seconds_in((UNet, "forward")) as spent:
                begun = time.perf_counter()
                self.sampler(self.noise, self.condition)
                shares.append(1 - spent[0] / (time.perf_counter() - begun))
        return min(shares)

    track_share_outside_network.unit = "share"
