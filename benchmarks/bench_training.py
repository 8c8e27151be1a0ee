"""Where the wall time of the trainers and of encoding goes, at the quickstart's sizes.

The trainers' is that of the engine's loop, with its checkpoints and log lines but without pictures, and
without the second that PyTorch takes to import its compiler when a process builds its first optimizer.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from galdiff.autoencoder import AutoencoderLoss, KLAutoencoder
from galdiff.config import load
from galdiff.config.build import fit_settings
from galdiff.data.stretch import Sqrt
from galdiff.diffusion import Objective
from galdiff.imageformat import ImageFormat
from galdiff.latents import CutoutStore
from galdiff.pipeline import autoencoder, denoiser, latents
from galdiff.progress import quiet
from galdiff.schema.conditions import ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE
from galdiff.simulate import simulate_galaxies
from galdiff.training import loop

from .clock import seconds_in

ROWS, SIZE, SEED, CPU = 4096, 64, 0, torch.device("cpu")
IMAGES = {"autoencoder": 3200, "denoiser": 30_000}
STEP = (loop, "_descend")
"""Backward, and the optimizer's step with its clipping and the gradients that it frees."""
FORMAT = ImageFormat(("r", "g", "b"), SIZE, "display", Sqrt(1.0))


def share(work, whole, *parts):
    """Share of the wall time of a function of a module that is spent in some methods while some work is done."""
    with quiet(), seconds_in(whole) as total, seconds_in(*parts) as spent:
        work()
    return spent[0] / total[0]


class _Stages:
    """Each stage from its own input store, as the flow runs it."""

    timeout = 300
    rows = ROWS

    def setup(self):
        torch.optim.AdamW([torch.zeros(1)])
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        catalog = load("quickstart")
        self.settings = fit_settings({stage: getattr(catalog, stage).model_dump() for stage in IMAGES})
        images, _ = simulate_galaxies(self.rows, seed=SEED, size=SIZE)
        schema = ConditionSchema([Votes("votes", GZ2_TREE)])
        self.cutouts = CutoutStore.create(
            self.path / "cutouts.zarr",
            shape=(3, SIZE, SIZE),
            bands=FORMAT.bands,
            dtype="float16",
            ids=np.arange(self.rows),
            split=np.full(self.rows, "train"),
            conditions=schema.ask(self.rows, {"votes": {"spiral": 0.9}}),
            schema=schema,
        )
        for k in self.cutouts.missing_shards():
            self.cutouts.write_shard(k, images[self.cutouts.shard_rows(k)].astype(np.float16))
        self.cutouts.finish()
        torch.manual_seed(SEED)
        self.autoencoder = KLAutoencoder(3, **self.settings.autoencoder["model"]).eval()

    def teardown(self):
        self.folder.cleanup()

    def encode(self, workers=1):
        how = {"image_format": FORMAT, "device": CPU, "autoencoder_hash": "0" * 64, "workers": workers}
        return latents.write_latents(self.cutouts, self.autoencoder, self.path / "latents.zarr", **how)


class Shares(_Stages):
    """Shares of the wall time."""

    def train(self, stage, trainer, *stores, **more):
        settings = dict(getattr(self.settings, stage))
        settings["training"] = {**settings["training"], "images": IMAGES[stage], "plot_every": None}
        trainer(
            *stores,
            self.path / stage,
            image_format=FORMAT,
            settings=settings,
            seed=SEED,
            device=CPU,
            metrics=self.path / "metrics.jsonl",
            **more,
        )

    def track_autoencoder_in_forward_backward_optimizer(self):
        def work():
            self.train("autoencoder", autoencoder.train_autoencoder, self.cutouts)

        return share(work, (autoencoder, "train"), (AutoencoderLoss, "__call__"), STEP)

    def track_denoiser_in_forward_backward_optimizer(self):
        stores, sampling = (self.encode(), self.autoencoder), {"sampler": "heun", "steps": 12, "guidance": 1.0}

        def work():
            self.train("denoiser", denoiser.train_denoiser, *stores, sampling=sampling)

        return share(work, (denoiser, "train"), (Objective, "__call__"), STEP)

    def track_encoding_in_forward(self):
        return share(self.encode, (latents, "write_latents"), (KLAutoencoder, "encode"))

    track_autoencoder_in_forward_backward_optimizer.unit = "share"
    track_denoiser_in_forward_backward_optimizer.unit = "share"
    track_encoding_in_forward.unit = "share"


class Encoding(_Stages):
    """Rate of encoding from the cutout cache over that of the autoencoder alone, as many threads at work in both."""

    params, param_names = [1, 2], ["workers"]
    rows = 2 * ROWS  # two shards: one a worker

    def setup(self, workers):
        super().setup()

    def teardown(self, workers):
        super().teardown()

    def alone(self, workers):
        """Seconds to encode what lies in memory."""
        pixels = torch.from_numpy(self.cutouts.images()).float()

        @torch.no_grad()
        def encode(part):
            for batch in part.split(256):
                self.autoencoder.encode(FORMAT.stretch(batch))

        begun = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(encode, pixels.chunk(2)))
        return time.perf_counter() - begun

    def track_rate_over_the_autoencoder_alone(self, workers):
        alone = [self.alone(workers) for _ in range(2)][-1]
        begun = time.perf_counter()
        with quiet():
            self.encode(workers=workers)
        return alone / (time.perf_counter() - begun)

    track_rate_over_the_autoencoder_alone.unit = "ratio"
