"""Commands about runs: train, check, sample, evaluate, compare, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from galdiff.cli.options import (
    APP,
    Catalog,
    Debug,
    Device,
    Out,
    Run,
    Set,
    appearing,
    plainly,
    refuse_options,
    refuse_output,
)
from galdiff.errors import GaldiffError

__all__ = ["app", "train_app"]

app = typer.Typer(help="Conditional latent diffusion for survey astronomy.", no_args_is_help=True, **APP)
train_app = typer.Typer(**APP)


@app.command("train")
@train_app.command()
@plainly
def train(
    catalog: Catalog,
    overrides: Set = None,
    stages: Annotated[str | None, typer.Option(metavar="A,B", help="Do only these stages.")] = None,
    redo: Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Archive a stage and do it again.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Train by wall time: autoencoder and denoiser get half each, or AE,DENOISER seconds.",
        ),
    ] = None,
    device: Device = None,
    out: Out = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    debug: Debug = False,
) -> None:
    """Train what a catalog file describes; a run that was stopped goes on where it was."""
    from galdiff.config import run

    folder = run(
        catalog,
        overrides=overrides or (),
        stages=None if stages is None else [s.strip() for s in stages.split(",")],
        redo=redo or (),
        budget=_parse_budget(budget),
        device=device,
        out=out,
        quiet=quiet,
    )
    if not quiet:
        typer.echo(f"run folder: {folder}")
        if (folder / "report.html").is_file():
            typer.echo(f"report:     {folder / 'report.html'}")
        typer.echo(f"next:       galdiff sample {folder} -n 64 -o samples.png")


@app.command("check")
@plainly
def check_(catalog: Catalog, overrides: Set = None, out: Out = Path("runs"), debug: Debug = False) -> None:
    """Find what is wrong with a run before it starts, and say what it takes."""
    from galdiff.config import load

    spec = load(catalog, overrides or ())
    from galdiff.config.check import check

    findings = check(spec, out.expanduser().absolute() / spec.name)
    for fact in findings.facts:
        typer.echo(fact)
    if findings.cost is not None:
        typer.echo(str(findings.cost))
    findings.raise_problems()
    typer.echo("no problems found")


@app.command("sample")
@plainly
def sample(
    run: Run,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A .zarr, .fits, .npy or .png.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 16,
    condition: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="What to ask for, such as morphology=merger or votes.spiral=0.9."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the sampler.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0.0, help="Guidance weight; 1 is none.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="sampling.A=B", help="Draw with another value than the catalog file's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first sample.")] = 0,
    ema: Annotated[float | None, typer.Option(help="Length of the weights' power-function average.")] = None,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: faster on a GPU.")] = "float32",
    device: Device = None,
    debug: Debug = False,
) -> None:
    """Draw samples from a trained run, as its catalog file's section sampling says or as --set changes it."""
    from galdiff.config.samples import parse_conditions, parse_options, save_samples, suffix_of

    suffix_of(output)
    refuse_output(output)
    conditions, options = parse_conditions(condition or ()), parse_options(overrides or ())
    from galdiff import LatentDiffusion

    refuse_options(conditions, sample, LatentDiffusion.sample)
    model = LatentDiffusion.load(run, device=device or "auto", ema=ema)
    images = model.sample(
        n, steps=steps, guidance=guidance, options=options, seed=seed, precision=precision, **conditions
    )
    with appearing(output) as unfinished:
        save_samples(images, unfinished)
    typer.echo(f"{n} samples: {output}")


@app.command("evaluate")
@plainly
def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder, to judge its samples.")] = None,
    real: Annotated[str | None, typer.Option(metavar="A", help="Real images: see galdiff.evaluate.")] = None,
    generated: Annotated[str | None, typer.Option(metavar="B", help="Images to judge by them.")] = None,
    train: Annotated[str | None, typer.Option(metavar="C", help="Other real images, as the floor.")] = None,
    features: Annotated[
        list[str] | None, typer.Option(metavar="SPACE", help="Another feature space, such as inception-2015:tf.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where figures and report go.")] = Path(
        "evaluation"
    ),
    size: Annotated[int | None, typer.Option(min=8, help="Resize all images to so many pixels a side.")] = None,
    crop: Annotated[float, typer.Option(help="Share of the real images' side to keep, with --size.")] = 1.0,
    unit: Annotated[str | None, typer.Option(help="Of the pixel values: display, or a FITS unit.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("-n", "--limit", min=2, help="Images of each at most; by default 10000, or what features take."),
    ] = None,
    any_range: Annotated[bool, typer.Option("--any-range", help="Let the ranges of pixel values differ.")] = False,
    lenses: Annotated[bool | None, typer.Option(help="Measure rings of strong lenses; by default by class.")] = None,
    judges: Annotated[bool, typer.Option(help="Train judges of conditions, where all images have them.")] = True,
    memorisation: Annotated[bool, typer.Option(help="With --train: look for copies of those images.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    device: Device = None,
    debug: Debug = False,
) -> None:
    """Judge a run's samples again, or any images by real ones; a run's earlier figures are archived.

    Images are folders of image, .npy or FITS files, an .npy or .npz file, Zarr groups (path.zarr:array), cutout stores
    (cutouts.zarr:test), samples.zarr, or run folders.
    """
    if run is not None:
        if real or generated or train:
            raise GaldiffError("a run is judged by its own images", remedy="Leave out RUN, or --real and --generated")
        from galdiff.config import again

        chosen: dict[str, Any] = {"evaluation__features": features} if features else {}
        folder = again(run, "evaluation", "report", device=device, **chosen)
    elif real is None or generated is None:
        raise GaldiffError("there is nothing to judge", remedy="Name a RUN, or --real A and --generated B")
    else:
        from galdiff.pipeline.external import evaluate as judge_images

        folder = output
        options: dict[str, Any] = {
            "size": size,
            "crop": crop,
            "unit": unit,
            "limit": "auto" if limit is None else limit,
            "any_range": any_range,
            "lenses": lenses,
            "judges": judges,
            "memorisation": memorisation,
            "seed": seed,
        }
        options |= {"train": train, "features": features or (), "device": device or "auto"}
        judge_images(real, generated, out=folder, **options)
    from galdiff.report import verdict_table

    typer.echo(verdict_table(folder))
    typer.echo(f"report: {folder / 'report.html'}")


@app.command("compare")
@plainly
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders, or folders of evaluations.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page to write.")] = Path(
        "compare.html"
    ),
    debug: Debug = False,
) -> None:
    """Put runs side by side: their figures, curves, and pictures of the same asks and seeds."""
    from galdiff.report import compare as compare_runs

    typer.echo(compare_runs(runs, output))
    typer.echo(f"report: {output}")


@app.command("report")
@plainly
def report(run: Run, debug: Debug = False) -> None:
    """Write a run's report again."""
    from galdiff.config import again

    typer.echo(again(run, "report") / "report.html")


def _parse_budget(text: str | None) -> float | tuple[float, float] | None:
    if text is None:
        return None
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 2) or not all(0 < part < float("inf") for part in parts):
        raise GaldiffError("a budget is SECONDS, or SECONDS,SECONDS for autoencoder and denoiser", where="--budget")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])
