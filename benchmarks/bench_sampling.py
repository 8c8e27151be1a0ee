"""Samples a second against diffusers, autoencoder included, by one thread's processor time in one run.

The networks are those of `time_to_quality`, untrained: speed does not depend on weights. By the figures of that script
galdiff's samples are the better ones at any length of training, so that the ratio is one to at least equal distance.
"""

import torch

from galdiff.autoencoder import build_autoencoder
from galdiff.diffusion import Denoiser, RectifiedFlow, build_sampler
from galdiff.nn import UNet
from galdiff.schema.conditions import Class, ConditionSchema

from .clock import processor_time
from .time_to_quality import peer_networks, peer_samples

CLASSES = ("elliptical", "clockwise", "anticlockwise", "edge_on", "unknown", "merger")
BATCH = 50


class AgainstDiffusers:
    params = ("ddim_50", "ddpm_1000")
    param_names = ("peer",)
    timeout = 600

    def setup(self, peer):
        torch.manual_seed(0)
        schema = ConditionSchema([Class("morphology", CLASSES)])
        self.autoencoder = build_autoencoder({"kind": "kl", "bands": 3}).eval()
        denoiser = Denoiser(UNet(8, schema, widths=(64, 128), blocks=1), RectifiedFlow(), prediction="flow")
        self.sampler = build_sampler("heun", denoiser, steps=12)
        self.condition = schema.ask(BATCH, {"morphology": "edge_on"})
        self.peer = peer_networks(len(CLASSES))
        self.labels = torch.full((BATCH,), 3)

    @torch.no_grad()
    def own(self):
        z = self.sampler(torch.randn(BATCH, 8, 8, 8), self.condition)
        self.autoencoder.decode(z).sample(0, torch.arange(BATCH))

    def ddim(self):
        peer_samples(*self.peer, self.labels)

    def ddpm(self):
        """A fortieth of the steps: a thousand take a minute and more."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
        peer_samples(*self.peer, self.labels, scheduler=scheduler, steps=25)

    def track_ratio(self, peer):
        work, part = (self.ddim, 1) if peer == "ddim_50" else (self.ddpm, 40)
        own, other = (processor_time(w, rounds=2) for w in (self.own, work))
        return part * other / own

    track_ratio.unit = "times"
