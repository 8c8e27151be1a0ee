"""Ablation: denoisers on the latents of a finished run, each switch on and off at equal seconds or equal images.

    python -m benchmarks.ablation RUN --images 60000 --seeds 0 1 -o ablation.json
    python -m benchmarks.ablation RUN --seconds 300 --variants unet unet+learned --seeds 0 1 2 -o ablation.json

A variant is a base and the switches that are on, such as ``dit+skips``; all are listed with ``--list``. Each is
trained anew on ``RUN/latents.zarr``, draws samples with the conditions of held-out objects, without guidance, and is
scored as in `time_to_quality`. A variant with ``power`` is scored at several lengths of its weight average.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from galdiff.atomic import write_json
from galdiff.autoencoder import load_autoencoder
from galdiff.config.build import fit_settings
from galdiff.latents import CutoutStore, LatentStore
from galdiff.model import DiffusionModel, resolve_device
from galdiff.pipeline import train_denoiser
from galdiff.pipeline.denoiser import denoiser_size
from galdiff.progress import quiet
from galdiff.training import posthoc

from .time_to_quality import Scores

BASES: dict[str, dict[str, Any]] = {
    "unet": {},
    "edm2": {"backbone": {"kind": "edm2"}},
    "dit": {"backbone": {"kind": "dit", "size": "tiny", "patch": 1}},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "stratified": {"objective": {"stratified": True}},
    "learned": {"objective": {"weighting": "learned"}},
    "skips": {"backbone": {"skips": True}},
    "power": {"ema": {"lengths": [0.05, 0.1], "snapshots": 40, "precision": "float32"}},
}
OF_DIT = ("skips",)
LENGTHS = (0.03, 0.05, 0.08, 0.1, 0.15)
FIRST_SEED = 1_000_000  # of the samples


def known() -> list[str]:
    """Name every base alone and with one switch."""
    pairs = itertools.product(BASES, SWITCHES)
    return [*BASES, *(f"{base}+{on}" for base, on in pairs if base == "dit" or on not in OF_DIT)]


def section(variant: str) -> dict[str, Any]:
    """Return a variant's section ``denoiser`` of a catalog file."""
    base, *switches = variant.split("+")
    out: dict[str, Any] = json.loads(json.dumps(BASES[base]))
    for key, value in itertools.chain.from_iterable(SWITCHES[name].items() for name in switches):
        out[key] = {**out.get(key, {}), **value}
    return out


class Ablation:
    """What all variants share: a finished run, its held-out images and the features they are scored by."""

    def __init__(self, run: Path, device: torch.device) -> None:
        self.run, self.device = run, device
        self.cutouts, self.latents = CutoutStore.open(run / "cutouts.zarr"), LatentStore.open(run / "latents.zarr")
        self.scores = Scores(self.cutouts)
        self.conditions = self.cutouts.conditions()[torch.from_numpy(self.scores.rows)]
        self.format = DiffusionModel.load(run).format

    def train(self, variant: str, *, images: int | None, seconds: float | None, seed: int) -> Iterator[dict[str, Any]]:
        """Train a variant and yield its scores, one for each length of the weight average."""
        length = {"images": images} if images else {}
        settings = fit_settings({"denoiser": {**section(variant), **length}}).denoiser
        with tempfile.TemporaryDirectory() as folder, quiet():
            begun = time.monotonic()
            model = train_denoiser(
                self.latents,
                load_autoencoder(self.run / "autoencoder").to(self.device),
                Path(folder),
                image_format=self.format,
                settings=settings,
                sampling={"sampler": "heun", "steps": 12, "guidance": 1.0},
                seed=seed,
                device=self.device,
                metrics=Path(folder) / "metrics.jsonl",
                budget=seconds,
            )
            spent = time.monotonic() - begun
            *_, last = (json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines())
            about = {"variant": variant, "seed": seed, "images": last["images"], "seconds": spent, "loss": last["loss"]}
            about |= {"network": denoiser_size(model).to_dict()}
            for ema in LENGTHS if "power" in variant else (None,):
                if ema is not None:
                    model.denoiser.load_state_dict(posthoc(Path(folder) / "snapshots", ema), strict=False)
                yield {**about, "ema": ema, **self.score(model)}

    def score(self, model: DiffusionModel) -> dict[str, float]:
        """Draw as many samples as there are held-out images, twice, and return the mean figures."""
        found = []
        for first in (FIRST_SEED, 2 * FIRST_SEED):
            seeds = first + torch.arange(len(self.scores.rows))
            found.append(self.scores(torch.cat(list(model.generate(model.sampler(), seeds, self.conditions))).numpy()))
        return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run folder with cutouts, autoencoder and latents")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--images", type=int, help="length of every training")
    length.add_argument("--seconds", type=float, help="seconds of every training")
    parser.add_argument("--variants", nargs="+", default=known(), help="by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--list", action="store_true", help="name the variants and end")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.list:
        print("\n".join(known()))
        return
    if not (options.run and options.output and (options.images or options.seconds)):
        parser.error("a run folder, -o and one of --images and --seconds are needed")
    ablation = Ablation(options.run, resolve_device(options.device))
    points: list[dict[str, Any]] = []
    for seed, variant in itertools.product(options.seeds, options.variants):
        for point in ablation.train(variant, images=options.images, seconds=options.seconds, seed=seed):
            points.append(point)
            print(json.dumps(point), flush=True)
            result = {
                "date": time.strftime("%Y-%m-%d"),
                "machine": platform.processor() or platform.machine(),
                "device": str(ablation.device),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "images": options.images,
                "seconds": options.seconds,
                "samples": len(ablation.scores.rows),
                "floor": ablation.scores.floor,
                "sections": {name: section(name) for name in options.variants},
                "points": points,
            }
            write_json(options.output, result)


if __name__ == "__main__":
    main()
