"""Commands about files: simulate, download, store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from galdiff.cli.options import APP, Debug, Device, Folder, Number, Seed, Store, plainly
from galdiff.cli.runs import app

__all__ = ["simulate_app", "store_app"]

simulate_app = typer.Typer(help="Simulate the files of a survey, to train on.", no_args_is_help=True, **APP)
app.add_typer(simulate_app, name="simulate")
store_app = typer.Typer(help="Look at the stores of a run.", no_args_is_help=True, **APP)
app.add_typer(store_app, name="store")


@simulate_app.command("galaxies")
@plainly
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
@plainly
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
@plainly
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
@plainly
def store_info(path: Store, debug: Debug = False) -> None:
    """Say what a finished store holds: shapes, rows of every split, columns, sizes and hashes."""
    from galdiff.latents.inspect import describe, open_store

    for line in describe(open_store(path)):
        typer.echo(line)


@store_app.command("verify")
@plainly
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
