r"""What a run costs: bytes of stores, samples and checkpoints, and seconds roughly.

Bytes follow from the shapes; the evaluation and the report, some megabytes and minutes, are not among them. Seconds
are measured: one forward and backward pass of either network on this machine, times the number of images, plus what the
other stages add. The machine may be busier or freer later, so the figure is good to a factor of about two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from galdiff.autoencoder import build_autoencoder
from galdiff.config.coders import AutoencoderSpec
from galdiff.config.spec import RunSpec
from galdiff.nn import build_backbone
from galdiff.nn.size import NetworkSize, network_size
from galdiff.pipeline.sweeps import SWEEP_SAMPLES
from galdiff.schema.conditions import Class, ConditionSchema

__all__ = ["Cost", "estimate"]

# The interpreter with torch, NumPy, Zarr and pandas in it, before any data [byte].
_BASE = 600 * 2**20
# Weights, gradients, two moments and the EMA, float32; a checkpoint is without gradients. Two of them and the result
# stay of either training, and a third is there while it is written.
_COPIES_IN_MEMORY, _COPIES_A_CHECKPOINT = 5, 4
_SECONDS_PER_DECODE = 4e-3
# Images in a timed pass: below a training batch, the overhead of every operation would weigh too much. Of large inputs
# there are fewer, so that a check takes neither minutes nor memory: so many pixels of images or of latents in all.
_PROBE, _IMAGE_PIXELS, _LATENT_PIXELS = 32, 2**17, 2**15


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes
    ----------
    disk, memory : int
        Bytes: all stores and checkpoints; the largest stage.
    seconds : dict of str to float
        By stage, on the device of the run.
    parameters : dict of str to int
        Of the autoencoder and the denoiser.
    network : NetworkSize
        Of the denoiser.
    """

    disk: int
    memory: int
    seconds: dict[str, float]
    parameters: dict[str, int]
    network: NetworkSize

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        stages = ", ".join(f"{stage} {_duration(s)}" for stage, s in self.seconds.items())
        sizes = ", ".join(f"{name} {n / 1e6:.2f} M" for name, n in self.parameters.items())
        return (
            f"parameters  {sizes}\n"
            f"denoiser    {self.network}\n"
            f"disk        {_size(self.disk)}\n"
            f"memory      roughly {_size(self.memory)}\n"
            f"time        roughly {_duration(total)} ({stages})"
        )


def estimate(
    spec: RunSpec, *, rows: int, bands: int, schema: ConditionSchema, bytes_per_value: int, device: torch.device
) -> Cost:
    """Estimate the disk, the memory and the time of a run.

    Parameters
    ----------
    spec : RunSpec
        The catalog file.
    rows, bands : int
        Images and their bands.
    schema : ConditionSchema
        The conditions.
    bytes_per_value : int
        Of a pixel value in the cutout cache: 2 or 4.
    device : torch.device
        Where it will run.
    """
    size, ae, de = spec.data.size, spec.autoencoder, spec.denoiser
    autoencoder = build_autoencoder({"kind": "kl", "bands": bands, **ae.settings()["model"]}).to(device)
    side, channels = size // autoencoder.factor, autoencoder.latent_channels
    network = {**de.settings()["backbone"], "channels": channels}
    backbone = build_backbone(network, schema).to(device)
    trained, batch = (ae.images, ae.batch) if isinstance(ae, AutoencoderSpec) else (0, 0)
    x = torch.randn(_probe(size, _IMAGE_PIXELS) if trained else 1, bands, size, size, device=device)
    z = torch.randn(_probe(side, _LATENT_PIXELS), channels, side, side, device=device)
    level, conditions = torch.zeros(len(z), device=device), schema.empty(len(z)).to(device)

    def encode_decode() -> Tensor:
        return autoencoder.decode(autoencoder.encode(x).mean).mean.square().mean()

    def denoise() -> Tensor:
        return backbone(z, level, conditions).square().mean()

    coding = _step(encode_decode, autoencoder, len(x)) if trained else _Step(3 * _forward(encode_decode), 0)
    step = {"autoencoder": coding, "denoiser": _step(denoise, backbone, len(z))}
    count = {"autoencoder": _parameters(autoencoder), "denoiser": _parameters(backbone)}

    shown = 64 * 2 * len(spec.sampling.asks or _one_ask_a_class(schema))
    samples = spec.sampling.n + shown + (SWEEP_SAMPLES if spec.sampling.sweeps != {} else 0)
    passes = spec.sampling.steps * (4 if spec.sampling.sampler == "heun" else 2)
    # A backward pass costs two forward passes.
    forward = {name: s.seconds / 3 for name, s in step.items()}
    seconds = {
        "cutouts": rows * _SECONDS_PER_DECODE,
        "autoencoder": ae.budget or trained * step["autoencoder"].seconds,
        "latents": rows * forward["autoencoder"] / 2,
        "denoiser": de.budget or de.images * step["denoiser"].seconds,
        "samples": samples * (passes * forward["denoiser"] + forward["autoencoder"] / 2),
    }
    pixels, latents = rows * bands * size**2, rows * channels * side**2
    memory = {
        "autoencoder": pixels * bytes_per_value + step["autoencoder"].saved * batch,
        "denoiser": latents * 2 * 2 + step["denoiser"].saved * de.batch,
    }
    weights = {name: 4 * n for name, n in count.items()}
    disk = (
        pixels * bytes_per_value
        + latents * 2 * 2
        + samples * bands * size**2 * 4
        + (2 * _COPIES_A_CHECKPOINT + 1) * sum(weights.values())
        + _COPIES_A_CHECKPOINT * max(weights.values())
    )
    peak = max(memory[name] + _COPIES_IN_MEMORY * weights[name] for name in memory)
    return Cost(disk, _BASE + peak, seconds, count, network_size(network, schema, side))


def _probe(side: int, pixels: int) -> int:
    return max(1, min(_PROBE, pixels // side**2))


@dataclass(frozen=True)
class _Step:
    """Seconds and saved bytes of a forward and backward pass, for one image."""

    seconds: float
    saved: int


def _step(loss: Callable[[], Tensor], module: nn.Module, images: int) -> _Step:
    saved: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        value = loss()
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    value.backward()
    total = sum(n for pointer, n in saved.items() if pointer not in own)

    def step() -> Tensor:
        value = loss()
        value.backward()
        return value

    return _Step(_seconds(step) / images, total // images)


@torch.no_grad()
def _forward(call: Callable[[], Tensor]) -> float:
    """Seconds of a forward pass."""
    return _seconds(call)


def _seconds(call: Callable[[], Tensor]) -> float:
    """Shortest of a few times."""
    value = call()
    times: list[float] = []
    while len(times) < 3 and sum(times) < 1:
        _wait(value)
        start = time.perf_counter()
        value = call()
        _wait(value)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _one_ask_a_class(schema: ConditionSchema) -> list[Any]:
    return [name for f in schema.fields if isinstance(f, Class) for name in f.classes] or [None]


def _size(n: int) -> str:
    return f"{n / 2**20:.0f} MiB" if n < 2**30 else f"{n / 2**30:.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
