"""What a GPU makes of galdiff: tests, speed and a training of five minutes, in one command and under ten minutes.

    python benchmarks/gpu.py --out gpu.json             # on the machine with the GPU; nothing is downloaded
    python benchmarks/gpu.py --out smoke.json --smoke   # every part, tiny, on any CPU: whether the script itself works

Parts, each written to the JSON as soon as it is done: the chip's bfloat16 rate in a large matrix product; the tests
marked ``gpu``; a run of the whole flow on simulated galaxies by the normal pipeline, its figures beside their floors,
the grid of samples as a PNG and the report as HTML beside the JSON; training and sampling images per second of the
shipped backbones, with the floating-point operations they take (`torch.utils.flop_counter`) as a share of the measured
rate, the peak of the memory, and how many steps after the first would have compiled anew. What the time limit leaves
no room for is listed as skipped.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils.flop_counter import FlopCounterMode

import galdiff
from galdiff.atomic import write_json
from galdiff.config import load
from galdiff.config.networks import DiTSpec
from galdiff.diffusion import Denoiser, Objective, RectifiedFlow, build_sampler
from galdiff.nn import build_backbone
from galdiff.randomness import Draws
from galdiff.report.plots import render, save_grid
from galdiff.schema.conditions import ConditionSchema, Votes
from galdiff.schema.trees import GZ2_TREE
from galdiff.training import read_metrics

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ConditionSchema([Votes("votes", GZ2_TREE)])
SAMPLER, STEPS = "heun", 18
COMPILING = 110.0  # seconds to keep for one compiled case

# A GPU sees some fifty times the images of two cores: larger networks and batches, steadier averages.
FLOW = {
    "data.simulate.n": 12_000,
    "autoencoder": {"width": 96, "batch": 128, "ema": 0.998, "save_every": 5_000_000, "plot_every": 5_000_000},
    "denoiser": {
        "backbone": {"kind": "unet", "widths": [96, 192, 192], "blocks": 2},
        "batch": 256,
        "ema": 0.998,
        "warmup_images": 50_000,
        "save_every": 5_000_000,
        "plot_every": 5_000_000,
    },
    "sampling.n": 1024,
}
SMOKE_FLOW = {
    "data.simulate.n": 160,
    "data.simulate.size": 32,
    "data.size": 32,
    "autoencoder": {"width": 16, "blocks": 1, "warmup_images": 64},
    "denoiser": {"backbone": {"kind": "unet", "widths": [16]}, "warmup_images": 64},
    "sampling": {"n": 16, "steps": 2, "asks": {"any": {}, "spiral": {"votes": {"spiral": 0.9}}}},
}


@dataclass(frozen=True)
class Case:
    """A backbone on latents ``(channel, y, x)``, in batches of a size."""

    name: str
    backbone: dict[str, Any]
    shape: tuple[int, int, int]
    batch: int


def shipped_cases() -> list[Case]:
    """Transformers and EDM2's U-Net on latents of 4 x 32 x 32, and the U-Nets of the catalog files on their own."""

    def catalog(name: str) -> Case:
        spec = load(ROOT / "catalogs" / f"{name}.yaml")
        side = spec.data.size // spec.autoencoder.factor
        backbone = spec.denoiser.settings()["backbone"]
        return Case(f"{name}.yaml", backbone, (spec.autoencoder.channels, side, side), 512)

    big = (4, 32, 32)

    def dit(size: str) -> dict[str, Any]:
        return DiTSpec(size=size, patch=2).settings()

    return [  # the first ones are compiled first
        Case("dit_b2", dit("B"), big, 256),
        catalog("gz2"),
        Case("dit_s2", dit("S"), big, 256),
        Case("edm2", {"kind": "edm2", "widths": [128, 256, 256], "blocks": 2, "head_width": 64}, big, 256),
        *map(catalog, ("gz1", "deeplense", "quickstart")),
    ]


def smoke_cases() -> list[Case]:
    """One small network of every kind."""
    small = (4, 8, 8)
    return [
        Case("dit", {"kind": "dit", "patch": 2, "width": 32, "depth": 1, "heads": 2}, small, 4),
        Case("unet", {"kind": "unet", "widths": [16, 16], "head_width": 16}, small, 4),
        Case("edm2", {"kind": "edm2", "widths": [16, 16], "blocks": 1, "head_width": 16}, small, 4),
    ]


def rate_of(call: Callable[[], object], device: torch.device, seconds: float, warmup: int = 3) -> float:
    """Calls per second, after warming up; the device is waited for at the ends alone."""

    def timed(n: int) -> float:
        begun = time.perf_counter()
        for _ in range(n):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    timed(warmup)
    n = max(1, int(3 * seconds / max(1e-9, timed(3))))
    return n / timed(n)


def matmul(device: torch.device, *, size: int, seconds: float) -> dict[str, Any]:
    """Measure a bfloat16 product of square matrices of random numbers."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = [2 * size**3 * rate_of(lambda: a @ b, device, seconds) / 1e12 for _ in range(3)]
    return {"size": size, "tflops": float(np.median(rates)), "repeats": rates}


def gpu_tests() -> dict[str, Any]:
    """Run the tests marked ``gpu`` in a process of their own and count the outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
        arguments = [f"--junitxml={found}", str(ROOT / "tests" / "gpu")]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if not found.is_file():
            return {"exit_code": done.returncode, "output": (done.stdout + done.stderr)[-4000:]}
        suite = next(ElementTree.parse(found).getroot().iter("testsuite"))
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    count["passed"] = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    failed = count["failures"] + count["errors"]
    output = {"output": done.stdout[-8000:]} if failed else {}
    return {"exit_code": done.returncode, **count, **output}


def speed(case: Case, device: torch.device, *, backend: str | None, seconds: float, peak: float) -> dict[str, Any]:
    """Measure training steps (forward, backward, fused AdamW; bfloat16 autocast) and sampling of one backbone.

    Parameters
    ----------
    case : Case
        What is measured.
    device : torch.device
        Where.
    backend : str, optional
        Of `torch.compile`; None runs eagerly.
    seconds : float
        To measure each of the two for.
    peak : float
        The chip's rate in a matrix product [TFLOP/s].
    """
    torch.manual_seed(0)
    torch.compiler.reset()
    backbone = build_backbone({**case.backbone, "channels": case.shape[0]}, SCHEMA).to(device)
    denoiser, objective = Denoiser(backbone, RectifiedFlow()).train(), Objective()
    optimizer = torch.optim.AdamW(denoiser.parameters(), 1e-4, fused=True)
    x = torch.randn(case.batch, *case.shape, device=device)
    conditions = SCHEMA.ask(case.batch, votes={"spiral": 0.9}).to(device)
    autocast = torch.autocast(device.type, torch.bfloat16)
    position, draws = 0, Draws(0, range(0), device)

    def forward_backward() -> torch.Tensor:
        nonlocal position
        here = draws.at(range(position, position + case.batch))
        position += case.batch
        with autocast:
            loss = objective(denoiser, x, here, condition=conditions)
        mean = loss.per_sample.mean()
        mean.backward()
        return mean

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = forward_backward()
        optimizer.step()
        return loss.detach()

    sampler = build_sampler(SAMPLER, denoiser, steps=STEPS)

    def sample() -> torch.Tensor:
        with autocast:
            return sampler(x, conditions)

    with FlopCounterMode(display=False) as counter:
        forward_backward()
    training_flops = counter.get_total_flops() / case.batch
    with FlopCounterMode(display=False) as counter, torch.no_grad(), autocast:
        denoiser(x, torch.full((case.batch,), 0.5, device=device), conditions)
    sampling_flops = counter.get_total_flops() * sampler.nfe / case.batch

    if backend:
        denoiser.backbone = torch.compile(backbone, backend=backend)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    first = float(step())
    first_seconds = time.perf_counter() - begun
    training = case.batch * rate_of(step, device, seconds)
    out = {
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "batch": case.batch,
        "latent": case.shape,
        "compiled": backend,
        "first_step_seconds": first_seconds,
        "recompiled_steps": _recompiled(step) if backend else 0,
        "losses": [first, float(step())],
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "training_images_per_second": training,
        "training_flops_per_image": training_flops,
        "training_share_of_matmul": training * training_flops / 1e12 / peak,
    }
    denoiser.eval()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    sampling = case.batch * rate_of(sample, device, seconds, warmup=1)
    return {
        **out,
        "sampler": f"{SAMPLER}, {STEPS} steps, {sampler.nfe} evaluations, guidance 1",
        "recompiled_samplings": _recompiled(sample, steps=2) if backend else 0,
        "sampling_peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "sampling_images_per_second": sampling,
        "sampling_share_of_matmul": sampling * sampling_flops / 1e12 / peak,
    }


def _recompiled(step: Callable[[], object], steps: int = 5) -> int:
    """Count steps on which the compiled network would be compiled once more."""
    count = 0
    for _ in range(steps):
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                step()
        except RuntimeError:
            count += 1
            step()
    return count


def flow(device: str, out: Path, *, overrides: dict[str, Any], budget: tuple[float, float]) -> dict[str, Any]:
    """Run the whole flow on simulated galaxies; the grid and the report are written beside the JSON."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = galdiff.train("quickstart", out=folder, device=device, budget=budget, quiet=True, **overrides)
        stages = {
            p.stem: json.loads(p.read_text()).get("seconds")
            for p in (run / "stages").glob("*.json")
            if "begun" not in p.name
        }
        grid = xr.open_zarr(run / "samples.zarr", group="grid", consolidated=False).load()
        guidance = float(grid["guidance"].max())
        shown = grid.isel(sample=np.flatnonzero((grid["guidance"] == guidance) & (grid["seed"] < 16)))
        picture, report = out.with_suffix(".png"), out.with_suffix(".html")
        pixels = render(shown["image"].to_numpy(), shown["image"].attrs["units"])
        save_grid(picture, pixels, columns=16)
        shutil.copyfile(run / "report.html", report)
        evaluation = json.loads((run / "evaluation.json").read_text())
        trained = {line["stage"]: line for line in read_metrics(run / "metrics.jsonl")}
    return {
        "seconds": time.monotonic() - begun,
        "budget": budget,
        "stages": stages,
        "trained": trained,
        "figures": evaluation["figures"],
        "grid": {"file": picture.name, "guidance": guidance, "rows": list(dict.fromkeys(shown["ask"].values.tolist()))},
        "report": report.name,
    }


def versions(device: torch.device) -> dict[str, Any]:
    """Chip and software."""
    names = ("galdiff", "torch", "numpy", "triton", "xarray", "zarr")
    installed = {str(d.name).lower(): d.version for d in importlib.metadata.distributions()}
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    software = {
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
    return {"chip": chip, "versions": {**software, **{name: installed.get(name) for name in names}}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("matmul", "tests", "flow", "speed")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--smoke", action="store_true", help="every part, tiny, on the CPU")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="only these parts")
    parser.add_argument("--training", type=float, default=300.0, help="seconds of the whole flow, roughly")
    parser.add_argument("--limit", type=float, default=585.0, help="seconds of everything")
    args = parser.parse_args()
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    if not args.smoke and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --smoke tries the script on a CPU")
    begun, device = time.monotonic(), torch.device("cpu" if args.smoke else "cuda")
    # Simulation, cutouts, samples and figures take the rest.
    budget = (2.0, 2.0) if args.smoke else (0.27 * args.training, 0.5 * args.training)
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "smoke": args.smoke,
        **versions(device),
    }

    def record(name: str, part: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            value = part()
        except Exception as error:  # one part that fails must not cost the others
            value = {"error": f"{type(error).__name__}: {error}"}
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        result[name] = value
        result["seconds"] = time.monotonic() - begun
        write_json(args.out, result)
        return value

    record("matmul", lambda: matmul(device, size=256 if args.smoke else 8192, seconds=0.1 if args.smoke else 1.0))
    if "tests" in args.parts:
        record("tests", gpu_tests)
    if "flow" in args.parts:
        overrides = SMOKE_FLOW if args.smoke else FLOW
        record("flow", lambda: flow(device.type, args.out, overrides=overrides, budget=budget))
    if "speed" in args.parts:
        peak, seconds = result["matmul"].get("tflops", torch.inf), 0.1 if args.smoke else 2.0
        for backend in (None, "eager" if args.smoke else "inductor"):
            for case in smoke_cases() if args.smoke else shipped_cases():
                name = f"speed/{case.name}/{'compiled' if backend else 'eager'}"
                if backend and not args.smoke and time.monotonic() - begun > args.limit - COMPILING:
                    record(name, lambda: {"skipped": "out of time"})
                    continue
                record(name, lambda c=case, b=backend: speed(c, device, backend=b, seconds=seconds, peak=peak))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
