"""From a `RunSpec` to built objects, and to the pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from galdiff.config.coders import AutoencoderSpec
from galdiff.config.guidance import guidance_problems
from galdiff.config.images import check_autoencoder
from galdiff.config.load import Overrides, dump, load, strip_tags
from galdiff.config.spec import RunSpec, StagesSpec
from galdiff.config.theory import check_theory
from galdiff.config.yaml import dotted
from galdiff.errors import CatalogFileError, StaleRunError, together
from galdiff.progress import say

if TYPE_CHECKING:
    from galdiff.data import CutoutDataset
    from galdiff.pipeline import Settings
    from galdiff.schema.conditions import ConditionSchema

__all__ = ["again", "build_dataset", "fit_settings", "run", "train"]


def build_dataset(spec: RunSpec, folder: Path) -> CutoutDataset:
    """Build the dataset of a run; what is to be simulated is written into the run folder first.

    Parameters
    ----------
    spec : RunSpec
        The catalog file.
    folder : Path
        The run folder.

    Raises
    ------
    DataError
        Where the data are not what the catalog file says.
    """
    from galdiff import data

    settings = spec.data.model_dump(exclude={"kind", "simulate"}, exclude_none=True)
    if spec.data.kind == "hdf5":
        settings["label"] = spec.data.label  # null is not the same as nothing said
    if spec.data.simulation is not None:
        from galdiff import simulate

        settings["root"] = folder / "simulated"
        writers: dict[str, Callable[..., object]]
        writers = {"gz2": simulate.write_gz2, "deeplense": simulate.write_deeplense}
        writers[spec.data.kind](settings["root"], **spec.data.simulation.model_dump())
    loaders: dict[str, Callable[..., CutoutDataset]] = {
        "gz2": data.GZ2Dataset,
        "image_folder": data.ImageFolderDataset,
        "idx": data.IDXDataset,
        "hdf5": data.HDF5Dataset,
        "deeplense": data.DeepLenseDataset,
        "fits": data.FITSDataset,
    }
    return loaders[spec.data.kind](settings.pop("root"), **settings)


def run(
    catalog: str | Path,
    *,
    overrides: Overrides = (),
    stages: Sequence[str] | None = None,
    redo: Sequence[str] = (),
    budget: float | tuple[float, float] | None = None,
    device: str | None = None,
    out: str | Path = "runs",
    quiet: bool = False,
) -> Path:
    """Train what a catalog file describes, from wherever an earlier call was stopped.

    Parameters
    ----------
    catalog : path or str
        A catalog file, or the name of a packaged one.
    overrides : iterable of str, or mapping
        ``"a.b=c"`` or ``{"a.b": value}``.
    stages : sequence of str, optional
        Do only these.
    redo : sequence of str
        Archive what these stages made, and do them again.
    budget : float or pair of float, optional
        Train for so many seconds of wall time instead of counts of images: autoencoder and denoiser each get half, or
        their own of the pair.
    device : str, optional
        "auto", "cpu", "cuda" or "cuda:1", in place of the catalog file's.
    out : path
        Folder of the run folder.
    quiet : bool
        No progress.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    CatalogFileError, DataError, ResourceError, StaleRunError
        Before anything is trained.
    """
    given = overrides, {} if device is None else {"device": device}
    spec = load(catalog, *given)
    spec = load(catalog, *given, _budgets(budget, spec)) if budget else spec
    # Only now what is slow to import: a wrong catalog file is refused at once.
    from galdiff import pipeline
    from galdiff.config.check import check
    from galdiff.progress import quiet as silence

    folder = Path(out).expanduser().absolute() / spec.name
    afresh = "cutouts" in redo
    earlier = pipeline.Run(folder).record("cutouts") if (folder / "stages").is_dir() and not afresh else None
    with silence() if quiet else nullcontext():
        # Once the cutouts are cached the run no longer needs the data, and goes on without them.
        found = check(spec, folder, cached=earlier is not None, afresh=afresh, stages=stages, estimate=False)
        found.raise_problems()
        pipeline.run(
            folder,
            lambda: build_dataset(spec, folder) if found.dataset is None else found.dataset,
            _settings(spec, spec.data.on_bad, spec.threads, spec.scheduler),
            data=_describe(spec, folder, found.dataset, earlier),
            device=spec.device,
            threads=spec.threads,
            stages=stages,
            redo=redo,
            budget=(spec.autoencoder.budget, spec.denoiser.budget),
            catalog_text=dump(spec),
        )
    return folder


def fit_settings(
    sections: Mapping[str, Any],
    *,
    on_bad: str = "fail",
    bands: int | None = None,
    size: int | None = None,
    schema: ConditionSchema | None = None,
) -> Settings:
    """Validate the sections of a catalog file that are not about the data, for training from Python.

    Parameters
    ----------
    sections : mapping
        Any of ``seed``, ``split``, ``autoencoder``, ``denoiser``, ``sampling``, ``evaluation``; the rest have defaults.
    on_bad : {"fail", "skip"}
        What to do with an unreadable file.
    bands, size : int, optional
        Of the images, which the autoencoder is then checked to be able to have.
    schema : ConditionSchema, optional
        Their conditions, by which the model is then checked to be able to be guided.

    Raises
    ------
    CatalogFileError
        With every problem and its dotted key.
    """
    try:
        spec = StagesSpec.model_validate(dict(sections))
    except ValidationError as error:
        problems = [
            f"{dotted((*strip_tags(row, sections), *inner))}: {message}"
            for row in error.errors()
            for inner, message in row.get("ctx", {}).get("problems", [((), row["msg"])])
        ]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise CatalogFileError("\n  ".join([count, *problems])) from error
    check_theory(spec)
    if bands and size:
        check_autoencoder(spec.autoencoder, bands=bands, size=size)
    if schema is not None and (refused := list(guidance_problems(spec, schema))):
        raise together(refused)
    return _settings(spec, on_bad, None)


def _settings(spec: RunSpec | StagesSpec, on_bad: str, threads: int | None, scheduler: str = "threads") -> Settings:
    from galdiff import pipeline

    return pipeline.Settings(
        autoencoder=spec.autoencoder.settings(),
        denoiser=spec.denoiser.settings(),
        sampling=spec.sampling.settings(),
        samples=spec.sampling.samples(),
        evaluation=spec.evaluation.settings(),
        split=spec.split.settings(),
        seed=spec.seed,
        on_bad=on_bad,
        workers=threads or os.cpu_count() or 1,
        scheduler=scheduler,
    )


def again(folder: str | Path, *stages: str, device: str | None = None, **overrides: Any) -> Path:
    """Do stages of an existing run again, from the catalog file that the run keeps; what they made is archived.

    Further arguments are values in place of the catalog file's, as of `train`.

    Raises
    ------
    CatalogFileError
        Where the folder is no run folder.
    """
    folder = Path(folder).expanduser().absolute()
    catalog = folder / "catalog.yaml"
    if not catalog.is_file():
        raise CatalogFileError("is not a run folder: it holds no catalog.yaml", where=folder)
    values = {"name": folder.name, **flatten(overrides)}
    return run(catalog, overrides=values, stages=stages, redo=stages[:1], device=device, out=folder.parent)


def train(
    catalog: str | Path,
    *,
    stages: Sequence[str] | None = None,
    redo: Sequence[str] = (),
    budget: float | tuple[float, float] | None = None,
    device: str | None = None,
    out: str | Path = "runs",
    quiet: bool = False,
    **overrides: Any,
) -> Path:
    """Train what a catalog file describes; the command ``galdiff-train`` as a function.

    Parameters
    ----------
    catalog, stages, redo, budget, device, out, quiet
        As in `galdiff.config.run`.
    **overrides
        Values in place of the catalog file's: ``seed=3``, ``denoiser__images=1000`` or ``denoiser={"images": 1000}``.

    Returns
    -------
    Path
        The run folder; `LatentDiffusion.load` reads it.

    Examples
    --------
    >>> run = galdiff.train("quickstart", denoiser={"images": 1000})  # doctest: +SKIP
    """
    return run(
        catalog,
        overrides=flatten(overrides),
        stages=stages,
        redo=redo,
        budget=budget,
        device=device,
        out=out,
        quiet=quiet,
    )


def flatten(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``a__b=c`` and ``a={"b": c}`` into ``{"a.b": c}``; a mapping further down replaces what is there."""
    flat: dict[str, Any] = {}
    for name, value in overrides.items():
        key = name.replace("__", ".")
        if isinstance(value, Mapping) and "." not in key:
            flat |= {f"{key}.{sub}": part for sub, part in value.items()}
        else:
            flat[key] = value
    return flat


def _budgets(budget: float | tuple[float, float], spec: RunSpec) -> dict[str, float]:
    """Share the seconds out; an autoencoder that is not trained gets none."""
    if not isinstance(spec.autoencoder, AutoencoderSpec):
        return {"denoiser.budget": budget[1] if isinstance(budget, tuple) else budget}
    parts = budget if isinstance(budget, tuple) else (budget / 2, budget / 2)
    return {"autoencoder.budget": parts[0], "denoiser.budget": parts[1]}


def _describe(
    spec: RunSpec, folder: Path, dataset: CutoutDataset | None, earlier: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything that determines the pixel values; where the data are gone, what it was when they were there."""
    if spec.simulates:
        return spec.data.model_dump(mode="json", exclude={"root"})
    if dataset is not None:
        return dataset.fingerprint()
    assert earlier is not None  # or the check had found the data missing
    _compare_settings(spec, folder)
    say("cutouts", f"the data are not at {spec.data.root}: the run goes on with its cached cutouts")
    return dict(earlier["inputs"]["data"])


def _compare_settings(spec: RunSpec, folder: Path) -> None:
    """Refuse settings of absent data that are not those the run keeps: no fingerprint could show what they change."""
    from galdiff.pipeline.records import differences

    kept = folder / "catalog.yaml"
    if not kept.is_file():  # trained from Python
        return
    before, now = (each.data.model_dump(mode="json", exclude={"root"}) for each in (load(kept), spec))
    changed = "\n  ".join(differences(before, now, "data"))
    if changed:
        message = f"stage 'cutouts' was made from other inputs, and the data are not there:\n  {changed}"
        remedy = "Undo the change, or say with data.root where the data are and do it again with --redo cutouts"
        raise StaleRunError(message, where=folder, remedy=remedy)
