r"""What a run costs: bytes of stores, samples, checkpoints and memory, and seconds roughly.

Bytes follow from the shapes: the networks are built without their weights, and what a training step keeps for its
backward pass is counted. Samples stay until they are written, and an evaluation holds all held-out images: of both the
copies are counted, which grow with the data, not what is made of a few at a time. Seconds are measured: one forward and
backward pass of either network on this machine, times the number of images, plus what the other stages add, the
evaluation and the report aside. The machine may be busier or freer later, so they are good to a factor of about two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from galdiff.autoencoder import Autoencoder, AutoencoderLoss, SkyAutoencoder, build_autoencoder
from galdiff.config.coders import AutoencoderSpec
from galdiff.config.spec import RunSpec
from galdiff.config.training import TrainingSpec
from galdiff.nn import PatchDiscriminator, build_backbone
from galdiff.nn.size import NetworkSize, network_size
from galdiff.pipeline.samples import GRID_SEEDS, default_asks
from galdiff.pipeline.scores import TRAINING_IMAGES
from galdiff.pipeline.sweeps import SWEEP_SAMPLES
from galdiff.randomness import Draws
from galdiff.schema.conditions import ConditionSchema

__all__ = ["Cost", "estimate", "time_stages"]

# The interpreter with torch, NumPy, Zarr and pandas in it, what kernels work in, and what the decoding of images leaves
# behind, measured [byte].
_BASE = 750 * 2**20
# Weights, gradients, two moments and the EMA, float32; a checkpoint is without gradients. While one is written, its
# bytes are there as well, half of them twice.
_COPIES_IN_MEMORY, _COPIES_A_CHECKPOINT, _COPIES_SAVING = 5, 4, 6
# Checkpoints that stay of either training; another one is there while it is written.
_KEPT = 2
# Images that are drawn: in batches, joined, and as they are written. Images that are compared, measured: as they are
# read, in the order of the comparison, stretched for judges, and what is kept of every one of them.
_COPIES_DRAWN, _COPIES_COMPARED = 3, 6
# The noise model is fitted to so many images at once, in so many times their bytes as float32, measured: images, means,
# residuals, and for three octaves of each random numbers, maps and amplitudes.
_CALIBRATED, _COPIES_CALIBRATED = 512, 27
_SECONDS_PER_DECODE = 4e-3
# Images in a timed pass: below a training batch, the overhead of every operation would weigh too much. Of large inputs
# there are fewer, so that a check takes neither minutes nor memory: so many pixels of images or of latents in all.
_PROBE, _IMAGE_PIXELS, _LATENT_PIXELS = 32, 2**17, 2**15
_COUNTED = 2  # images in a pass whose bytes are counted
_NOWHERE = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """An estimate.

    Attributes
    ----------
    disk, memory, host : int
        Bytes: all stores and checkpoints; the larger training; the samples or the evaluation, whose images are in the
        machine's own memory also where a GPU computes.
    parameters : dict of str to int
        Of the autoencoder and the denoiser.
    network : NetworkSize
        Of the denoiser.
    seconds : dict of str to float
        By stage, on the device of the run; empty where they were not measured.
    """

    disk: int
    memory: int
    host: int
    parameters: dict[str, int]
    network: NetworkSize
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {n / 1e6:.2f} M" for name, n in self.parameters.items())
        lines = [f"parameters  {sizes}", f"denoiser    {self.network}", f"disk        {_size(self.disk)}"]
        lines.append(f"memory      roughly {_size(max(self.memory, self.host))}")
        if self.seconds:
            stages = ", ".join(f"{stage} {_duration(s)}" for stage, s in self.seconds.items())
            lines.append(f"time        roughly {_duration(sum(self.seconds.values()))} ({stages})")
        return "\n".join(lines)


def estimate(spec: RunSpec, *, rows: int, bands: int, schema: ConditionSchema, bytes_per_value: int) -> Cost:
    """Estimate the disk and the memory of a run; it takes neither itself.

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
    """
    size, ae, de = spec.data.size, spec.autoencoder, spec.denoiser
    autoencoder, backbone = _networks(spec, bands, schema, _NOWHERE)
    side, channels = size // autoencoder.factor, autoencoder.latent_channels
    count = {"autoencoder": _parameters(autoencoder), "denoiser": _parameters(backbone)}
    weights = {name: 4 * n for name, n in count.items()}
    network = {**de.settings()["backbone"], "channels": channels}
    image = bands * size**2
    cutouts, latents = rows * image * bytes_per_value, rows * channels * side**2 * 2 * 2 * de.views

    z, level = torch.empty(_COUNTED, channels, side, side, device=_NOWHERE), torch.empty(_COUNTED, device=_NOWHERE)
    conditions = schema.empty(_COUNTED).to(_NOWHERE)
    kept = _kept_bytes(lambda: backbone(z, level, conditions).square().mean(), backbone)
    memory = {"denoiser": latents + _training(de, weights["denoiser"], kept)}
    trainings: dict[str, TrainingSpec] = {"denoiser": de}
    if isinstance(ae, AutoencoderSpec):
        assert isinstance(autoencoder, SkyAutoencoder)
        kept, adversary = _coding(ae, autoencoder, bands, size)
        calibration = min(rows, _CALIBRATED) * image * 4 * _COPIES_CALIBRATED
        weights["autoencoder"] += adversary
        memory["autoencoder"] = cutouts + _training(ae, weights["autoencoder"], kept, calibration)
        trainings["autoencoder"] = ae
    drawn, held_out = _samples(spec, schema), round((spec.split.validation + spec.split.test) * rows)
    compared = min(TRAINING_IMAGES, round(spec.split.train * rows)) + held_out + min(spec.sampling.n, held_out)
    host = 4 * image * max(_COPIES_DRAWN * drawn, _COPIES_COMPARED * compared)
    written = {name: -(-t.images // t.save_every) if t.budget is None else _KEPT + 1 for name, t in trainings.items()}
    checkpoint = {name: _COPIES_A_CHECKPOINT * weights[name] for name in trainings}
    disk = cutouts + latents + drawn * image * 4 + sum(weights.values())
    disk += sum(checkpoint[name] * min(n, _KEPT) for name, n in written.items())
    disk += max(checkpoint[name] * (n > _KEPT) for name, n in written.items())
    if de.ema.lengths is not None:  # snapshots, of which averages of other lengths are made
        precision = 2 if de.ema.precision == "float16" else 4
        disk += de.ema.snapshots * len(de.ema.lengths) * count["denoiser"] * precision
    return Cost(disk, _BASE + max(memory.values()), _BASE + host, count, network_size(network, schema, side))


def time_stages(
    spec: RunSpec, *, rows: int, bands: int, schema: ConditionSchema, device: torch.device
) -> dict[str, float]:
    """Measure how long the stages take, in seconds: a step of either network is made, a matter of seconds.

    Parameters
    ----------
    spec, rows, bands, schema
        As in `estimate`.
    device : torch.device
        Where it will run.
    """
    size, ae, de = spec.data.size, spec.autoencoder, spec.denoiser
    autoencoder, backbone = _networks(spec, bands, schema, device)
    side, channels = size // autoencoder.factor, autoencoder.latent_channels
    trained, batch = (ae.images, ae.batch) if isinstance(ae, AutoencoderSpec) else (0, 1)
    x = torch.randn(_probe(batch, size, _IMAGE_PIXELS), bands, size, size, device=device)
    z = torch.randn(_probe(de.batch, side, _LATENT_PIXELS), channels, side, side, device=device)
    level, conditions = torch.zeros(len(z), device=device), schema.empty(len(z)).to(device)

    def encode_decode() -> Tensor:
        return autoencoder.decode(autoencoder.encode(x).mean).mean.square().mean()

    def denoise() -> Tensor:
        return backbone(z, level, conditions).square().mean()

    coding = _step(encode_decode) / len(x) if trained else 3 * _forward(encode_decode)
    denoising = _step(denoise) / len(z)
    passes = spec.sampling.settings()["steps"] * (4 if spec.sampling.sampler == "heun" else 2)
    # A backward pass costs two forward passes; encoding and decoding cost half of one each.
    return {
        "cutouts": rows * _SECONDS_PER_DECODE,
        "autoencoder": ae.budget or trained * coding,
        "latents": rows * coding / 6,
        "denoiser": de.budget or de.images * denoising,
        "samples": _samples(spec, schema) * (passes * denoising / 3 + coding / 6),
    }


def _networks(
    spec: RunSpec, bands: int, schema: ConditionSchema, device: torch.device
) -> tuple[Autoencoder, nn.Module]:
    # Weights that are only read, of a pretrained autoencoder, are there anyway.
    read = not isinstance(spec.autoencoder, AutoencoderSpec)
    with nullcontext() if read else device:
        autoencoder = build_autoencoder({"kind": "kl", "bands": bands, **spec.autoencoder.settings()["model"]})
    with device:
        network = {**spec.denoiser.settings()["backbone"], "channels": autoencoder.latent_channels}
        backbone = build_backbone(network, schema)
    return (autoencoder.to(device) if read and device != _NOWHERE else autoencoder), backbone


def _training(spec: TrainingSpec, weights: int, kept: int, calibration: int = 0) -> int:
    """Bytes of a training: of weights, and of a step, a checkpoint or the end, which are not at once."""
    return _COPIES_IN_MEMORY * weights + max(kept * spec.batch, _COPIES_SAVING * weights, calibration)


def _coding(spec: AutoencoderSpec, autoencoder: SkyAutoencoder, bands: int, size: int) -> tuple[int, int]:
    """Bytes that a step of the autoencoder's training keeps for an image, and those of the adversary's weights."""
    settings = spec.settings()
    objective = AutoencoderLoss(**settings["loss"])
    x = torch.empty(_COUNTED, bands, size, size, device=_NOWHERE)
    draws = Draws(0, range(_COUNTED), _NOWHERE)
    kept = _kept_bytes(lambda: objective(autoencoder, x, draws)[0], autoencoder)
    if "discriminator" not in settings:
        return kept, 0
    with _NOWHERE:
        adversary = PatchDiscriminator(bands, **settings["discriminator"])
    both = torch.cat([x, x])
    return kept + _kept_bytes(lambda: adversary(both).square().mean(), adversary), 4 * _parameters(adversary)


def _kept_bytes(loss: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that a forward pass of `_COUNTED` images keeps for the backward pass, an image, weights aside."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        value = loss()  # which keeps what it needs: no storage's address is used twice
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    total = sum(n for address, n in kept.items() if address not in own)
    del value
    return total // _COUNTED


def _samples(spec: RunSpec, schema: ConditionSchema) -> int:
    """Images that are drawn: for the evaluation, of all asks at two guidances, and in sweeps."""
    shown = 2 * GRID_SEEDS * len(spec.sampling.asks or default_asks(schema))
    return spec.sampling.n + shown + (SWEEP_SAMPLES if spec.sampling.sweeps != {} else 0)


def _step(loss: Callable[[], Tensor]) -> float:
    """Seconds of a forward and backward pass."""

    def step() -> Tensor:
        value = loss()
        value.backward()
        return value

    return _seconds(step)


def _probe(batch: int, side: int, pixels: int) -> int:
    return max(1, min(_PROBE, batch, pixels // side**2))


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


def _size(n: int) -> str:
    return f"{n / 2**20:.0f} MiB" if n < 2**30 else f"{n / 2**30:.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
