"""The stages, in the order of the flow; they take built objects, never specifications."""

from galdiff.pipeline.autoencoder import AutoencoderTask, train_autoencoder
from galdiff.pipeline.cutouts import write_cutouts
from galdiff.pipeline.denoiser import DenoiserTask, train_denoiser
from galdiff.pipeline.latents import write_latents
from galdiff.pipeline.records import Run
from galdiff.pipeline.run import Settings, run
from galdiff.pipeline.samples import write_samples
from galdiff.pipeline.scores import write_scores
from galdiff.stages import STAGES

__all__ = [
    "STAGES",
    "AutoencoderTask",
    "DenoiserTask",
    "Run",
    "Settings",
    "run",
    "train_autoencoder",
    "train_denoiser",
    "write_cutouts",
    "write_latents",
    "write_samples",
    "write_scores",
]
