"""Time to quality: galdiff and a plain diffusers pipeline on the same cutouts, cores and seconds.

    python benchmarks/time_to_quality.py --root DATA/gz1 --seconds 60 120 240 --seeds 0 1 2 -o results.json

Each point of the curve is a training of its own, whose schedules end at its last second: 45 % of the time for the
autoencoder, the rest for the denoiser, for both systems; galdiff's autoencoder gets no more than ``--longest``
seconds, since latents of one that was trained for longer are harder to generate (docs/measurements.md). ``--rates 174
554`` (images a second of autoencoder and denoiser, measured on the idle machine) trains for as many images as that
time holds instead, so that a long point may be taken while the machine does something else. The peer is what its
documentation leads to: AutoencoderKL (f4; 32, 64, 128) and a class-conditional UNet2DModel (64, 128, 128), AdamW at a
constant rate, noise prediction on the cosine schedule, a weight average, 50 steps of DDIM. Both are scored by the same
features (`galdiff.metrics`) against the same held-out images: galdiff by the mean of four draws of samples, since draws
of 1,000 from one model scatter by 0.03 in FD_shape, and the peer, whose samples take minutes, by one. Neither clock
runs while samples are drawn or scored.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from galdiff.atomic import write_json
from galdiff.config import load, run
from galdiff.latents import CutoutStore
from galdiff.metrics import Whitening, frechet_distance, high_frequency_power, physical_features
from galdiff.model import DiffusionModel
from galdiff.pipeline.samples import held_out_rows

SHARE = 0.45
SAMPLES, DRAWS = 1000, 4


class Scores:
    """Distances to held-out real images, whitened by the training split."""

    def __init__(self, store: CutoutStore) -> None:
        self.rows = held_out_rows(store)[:SAMPLES]
        self.real = store.images(self.rows).astype(np.float32)
        train = store.images(store.rows("train")).astype(np.float32)
        self.whiten = Whitening.fit(physical_features(train))
        self.features = self.whiten(physical_features(self.real))
        other = train[np.random.default_rng(0).permutation(len(train))[: len(self.rows)]]
        self.floor = self(other)

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        f = self.whiten(physical_features(images))
        power = high_frequency_power(images).mean() / high_frequency_power(self.real).mean()
        shape = frechet_distance(f[:, :7], self.features[:, :7])
        return {"FD_shape": shape, "FD_all": frechet_distance(f, self.features), "high_frequency": float(power)}


class Length:
    """When a training ends: after seconds, or after the images that an idle machine sees in them."""

    def __init__(self, seconds: float, rate: float | None) -> None:
        self.seconds, self.images = seconds, None if rate is None else round(seconds * rate)
        self.begun = time.monotonic()

    def reached(self, images: int) -> bool:
        """Whether a training that saw so many images is over."""
        return time.monotonic() - self.begun >= self.seconds if self.images is None else images >= self.images


Rates = tuple[float, float] | tuple[None, None]


def galdiff(
    cache: Path, catalog: str, root: str, seconds: float, longest: float, seed: int, scores: Scores, rates: Rates
) -> list[np.ndarray]:
    """Train within the budget in a copy of the cached run; return draws of samples with the held-out conditions."""
    with tempfile.TemporaryDirectory() as out:
        shutil.copytree(cache, Path(out) / cache.name)
        overrides = [f"data.root={root}", f"seed={seed}"]
        first = min(SHARE * seconds, longest)
        budget = (first, seconds - first)
        if rates[0] is not None:
            for stage, part, rate in zip(("autoencoder", "denoiser"), budget, rates, strict=True):
                overrides.append(f"{stage}.images={Length(part, rate).images}")
        stages = ["autoencoder", "latents", "denoiser"]
        lengths = {"budget": budget} if rates[0] is None else {}
        folder = run(catalog, overrides=overrides, stages=stages, out=out, quiet=True, **lengths)
        model = DiffusionModel.load(folder)
        conditions = CutoutStore.open(folder / "cutouts.zarr").conditions()[torch.from_numpy(scores.rows)]
        draws = []
        for first in range(1, DRAWS + 1):
            seeds = first * 1_000_000 + torch.arange(len(scores.rows))
            draws.append(torch.cat(list(model.generate(model.sampler(guidance=1.0), seeds, conditions))).numpy())
        return draws


def peer_networks(classes: int) -> tuple[nn.Module, nn.Module]:
    """The peer's autoencoder and denoiser."""
    from diffusers import AutoencoderKL, UNet2DModel

    vae = AutoencoderKL(
        3,
        3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 128),
        latent_channels=4,
        sample_size=64,
    )
    unet = UNet2DModel(
        16,
        4,
        4,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=classes,
    )
    return vae, unet


@torch.no_grad()
def peer_samples(
    vae: nn.Module, unet: nn.Module, labels: torch.Tensor, scale: float = 1.0, scheduler: Any = None, steps: int = 50
) -> torch.Tensor:
    """Draw pixel values ``(n, 3, 64, 64)`` in [0, 1] from the peer, by DDIM where no other scheduler is given."""
    from diffusers import DDIMScheduler

    scheduler = scheduler or DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.set_timesteps(steps)
    z = torch.randn(len(labels), 4, 16, 16)
    for t in scheduler.timesteps:
        z = scheduler.step(unet(z, t, class_labels=labels).sample, t, z).prev_sample
    return (vae.decode(z * scale).sample.clamp(-1, 1) + 1) / 2


def diffusers(store: CutoutStore, seconds: float, seed: int, scores: Scores, rates: Rates) -> list[np.ndarray]:
    """The peer."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    torch.manual_seed(seed)
    rows = store.rows("train")
    x = torch.from_numpy(store.images(rows)).float() * 2 - 1
    labels = store.conditions().values["morphology"]
    classes = int(labels.max()) + 1
    y = labels[torch.from_numpy(rows)]
    vae, unet = peer_networks(classes)
    optimizer = torch.optim.AdamW(vae.parameters(), 5e-4)
    length, seen = Length(SHARE * seconds, rates[0]), 0
    while not length.reached(seen):
        batch = x[torch.randint(len(x), (16,))]
        posterior = vae.encode(batch).latent_dist
        loss = (vae.decode(posterior.sample()).sample - batch).abs().mean() + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch)
    vae.eval()
    with torch.no_grad():
        z = torch.cat([vae.encode(part).latent_dist.mean for part in x.split(64)])
        scale = float(z.std())
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True)
    optimizer = torch.optim.AdamW(unet.parameters(), 5e-4)
    noise = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    length, seen = Length((1 - SHARE) * seconds, rates[1]), 0
    while not length.reached(seen):
        pick = torch.randint(len(z), (64,))
        clean, epsilon = z[pick] / scale, torch.randn(64, *z.shape[1:])
        t = torch.randint(1000, (64,))
        loss = (unet(noise.add_noise(clean, epsilon, t), t, class_labels=y[pick]).sample - epsilon).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.step(unet.parameters())
        seen += len(clean)
    ema.copy_to(unet.parameters())
    unet.eval()
    parts = torch.from_numpy(scores.rows).split(100)
    return [torch.cat([peer_samples(vae, unet, labels[part], scale) for part in parts]).numpy()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="folder of the gz1 data")
    parser.add_argument("--catalog", default="gz1")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60, 120, 240, 600, 1200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", default=["galdiff", "diffusers"], choices=["galdiff", "diffusers"])
    parser.add_argument("--longest", type=float, default=80, help="seconds of galdiff's autoencoder, at most")
    parser.add_argument("--rates", type=float, nargs=2, default=[None, None], help="images a second, of one system")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.rates[0] is not None and len(options.systems) != 1:
        parser.error("--rates are those of one system: give --systems too")
    points: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.abspath(options.root)
        cache = run(options.catalog, overrides=[f"data.root={root}"], stages=["cutouts"], out=folder, quiet=True)
        store = CutoutStore.open(cache / "cutouts.zarr")
        scores, rates = Scores(store), tuple(options.rates)
        for seconds in options.seconds:
            for system in options.systems:
                for seed in options.seeds:
                    if system == "galdiff":
                        draws = galdiff(cache, options.catalog, root, seconds, options.longest, seed, scores, rates)
                    else:
                        draws = diffusers(store, seconds, seed, scores, rates)
                    found = [scores(images) for images in draws]
                    mean = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
                    point = {"system": system, "seconds": seconds, "seed": seed, "rates": options.rates}
                    points.append({**point, **mean, "draws": found})
                    print(json.dumps(points[-1]), flush=True)
                    result = {
                        "date": time.strftime("%Y-%m-%d"),
                        "cpu": platform.processor() or platform.machine(),
                        "threads": torch.get_num_threads(),
                        "torch": torch.__version__,
                        "catalog": load(options.catalog, [f"data.root={root}"]).model_dump(
                            mode="json", exclude={"data"}
                        ),
                        "samples": len(scores.rows),
                        "floor": scores.floor,
                        "points": points,
                    }
                    write_json(options.output, result)


if __name__ == "__main__":
    main()
