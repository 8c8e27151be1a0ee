"""The commands ``galdiff`` and ``galdiff-train``.

Heavy imports happen after parsing, so that ``--help`` answers at once. A mistake of the user's is printed without a
traceback and ends with status 2; an interrupted run ends with 130 and goes on when the same command is given again.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from galdiff import __version__
from galdiff.errors import GaldiffError

__all__ = ["app", "main", "main_train", "train_app"]

# OpenMP's threads spin for milliseconds at the end of every parallel loop before they sleep. Where another process
# wants one of the cores, that takes the core from the thread that is waited for (10 images/s instead of 81 in
# training); a few microseconds of spinning cost nothing on a machine that is free. To be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_OPTIONS: dict[str, Any] = {"pretty_exceptions_enable": False, "rich_markup_mode": None}

app = typer.Typer(help="Conditional latent diffusion for survey astronomy.", no_args_is_help=True, **_OPTIONS)
train_app = typer.Typer(**_OPTIONS)
simulate_app = typer.Typer(help="Simulate the files of a survey, to train on.", no_args_is_help=True, **_OPTIONS)
app.add_typer(simulate_app, name="simulate")
store_app = typer.Typer(help="Look at the stores of a run.", no_args_is_help=True, **_OPTIONS)
app.add_typer(store_app, name="store")

Catalog = Annotated[str, typer.Argument(metavar="CATALOG", help="A catalog file, or a packaged one: quickstart.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value, as if in the file.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run folder.")]
Store = Annotated[str, typer.Argument(metavar="PATH", help="A store: a folder, or a URL.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Folder = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it is made if need be.")]
Number = Annotated[int, typer.Option("-n", min=1, help="How many.")]
Seed = Annotated[int, typer.Option(min=0, help="Other seeds give others; the same seed gives the same files.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Report errors that a user can mend without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on from the last checkpoint", err=True)
            raise typer.Exit(130) from None
        except GaldiffError as error:
            if debug:
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None

    return wrapped


@app.command("train")
@train_app.command()
@_plainly
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
@_plainly
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
@_plainly
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
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first sample.")] = 0,
    ema: Annotated[float | None, typer.Option(help="Length of the weights' power-function average.")] = None,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: faster on a GPU.")] = "float32",
    device: Device = None,
    debug: Debug = False,
) -> None:
    """Draw samples from a trained run."""
    from galdiff.config.samples import parse_conditions, save_samples, suffix_of

    suffix_of(output)
    conditions = parse_conditions(condition or ())
    from galdiff import LatentDiffusion

    model = LatentDiffusion.load(run, device=device or "auto", ema=ema)
    images = model.sample(n, steps=steps, guidance=guidance, seed=seed, precision=precision, **conditions)
    save_samples(images, output)
    typer.echo(f"{n} samples: {output}")


@app.command("evaluate")
@_plainly
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
    limit: Annotated[int, typer.Option("-n", "--limit", min=2, help="Images of each at most.")] = 10_000,
    any_range: Annotated[bool, typer.Option("--any-range", help="Let the ranges of pixel values differ.")] = False,
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
            "limit": limit,
            "any_range": any_range,
            "seed": seed,
        }
        options |= {"train": train, "features": features or (), "device": device or "auto"}
        judge_images(real, generated, out=folder, **options)
    from galdiff.report import verdict_table

    typer.echo(verdict_table(folder))
    typer.echo(f"report: {folder / 'report.html'}")


@app.command("compare")
@_plainly
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
@_plainly
def report(run: Run, debug: Debug = False) -> None:
    """Write a run's report again."""
    from galdiff.config import again

    typer.echo(again(run, "report") / "report.html")


@simulate_app.command("galaxies")
@_plainly
def simulate_galaxies(
    out: Folder,
    n: Number,
    seed: Seed = 0,
    size: Annotated[int, typer.Option(min=16, help="Side of the images [pixel].")] = 64,
    debug: Debug = False,
) -> None:
    """Simulate galaxies with their votes, in the files of Galaxy Zoo 2."""
    from galdiff.simulate import write_gz2

    write_gz2(out, n, seed=seed, size=size)
    _say_how_to_read(out, kind="gz2", size=size)


@simulate_app.command("lenses")
@_plainly
def simulate_lenses(
    out: Folder,
    n: Number,
    model: Annotated[str, typer.Option(help="I: generic counts; II: Euclid VIS; III: HST.")] = "II",
    seed: Seed = 0,
    subhalo: Annotated[str, typer.Option(help="Cold dark matter: point (masses) or nfw (halos).")] = "point",
    compat: Annotated[bool, typer.Option("--compat", help="What DeepLenseSim makes, mistakes included.")] = False,
    device: Device = None,
    debug: Debug = False,
) -> None:
    """Simulate strong lenses with and without dark substructure, in the files of DeepLense."""
    from galdiff.model import resolve_device
    from galdiff.simulate import write_deeplense
    from galdiff.simulate.telescopes import TELESCOPES

    where = resolve_device(device or "auto")
    write_deeplense(out, n, model=model, seed=seed, subhalo=subhalo, compat=compat, device=where)
    # What the authors' files have and plain ones have not.
    objects = {"allow_object_arrays": True} if compat else {}
    _say_how_to_read(out, kind="deeplense", size=TELESCOPES[model].size, **objects)


def _say_how_to_read(folder: Path, *, kind: str, size: int, **keys: Any) -> None:
    """Say the section of a catalog file that reads a folder; its images are cropped to whole latents."""
    import yaml

    whole = size - size % 8
    data = {"kind": kind, "root": str(folder.absolute()), "size": whole} | keys
    if whole != size:
        data["crop"] = round(whole / size, 6)
    text = yaml.safe_dump({"data": data}, sort_keys=False, allow_unicode=True)
    typer.echo(f"a catalog file reads it with\n\n{text}")


@app.command("download")
@_plainly
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="gz2, gz2-table, galaxy10-sdss, galaxy10-decals or mnist.")
    ],
    out: Annotated[Path | None, typer.Argument(metavar="DIR", help="Where the files go; by default data/NAME.")] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A mirror that has the files, or $GALDIFF_DOWNLOAD_URL.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Download a published data set, and say how a catalog file reads it; goes on where it was stopped."""
    from galdiff.data.download import download

    section = download(name, out or Path("data") / name, base_url=base_url, say=lambda text: typer.echo(text, err=True))
    typer.echo(section, nl=False)


@store_app.command("info")
@_plainly
def store_info(path: Store, debug: Debug = False) -> None:
    """Say what a finished store holds: shapes, rows of every split, columns, sizes and hashes."""
    from galdiff.latents.inspect import describe, open_store

    for line in describe(open_store(path)):
        typer.echo(line)


@store_app.command("verify")
@_plainly
def store_verify(
    path: Store,
    reopen: Annotated[bool, typer.Option("--reopen", help="Have the stage write the damaged shards again.")] = False,
    debug: Debug = False,
) -> None:
    """Read and hash all of a finished store; name the damaged rows, and end with status 1 if there are any."""
    from galdiff.latents.inspect import find_damage, open_store

    store = open_store(path)
    damage = find_damage(store)
    for part in damage:
        typer.echo(part)
    if not damage:
        typer.echo(f"{len(store):,} rows in {store.shards} shards are as they were written")
        return
    shards = sorted({part.shard for part in damage if part.shard is not None})
    if any(part.shard is None for part in damage):
        typer.echo(
            f"columns are of all rows: do the stage again with galdiff train CATALOG --redo {store.KIND}", err=True
        )
    elif reopen:
        store.reopen(shards)
        folder = Path(store.path).parent
        if (folder / "stages").is_dir():
            from galdiff.pipeline import Run as RunFolder

            RunFolder(folder).reopen(store.KIND)
        typer.echo(f"run galdiff train CATALOG: it writes shards {shards} again, and nothing else", err=True)
    else:
        typer.echo(f"to write just shards {shards} again: galdiff store verify {path} --reopen", err=True)
    raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _face(version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False) -> None:
    if version:
        typer.echo(f"galdiff {__version__}")
        raise typer.Exit()


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


def main() -> None:
    """Run ``galdiff``."""
    app()


def main_train() -> None:
    """Run ``galdiff-train``."""
    train_app()
