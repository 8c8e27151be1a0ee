"""`LatentDiffusion`: a trained model as an astronomer uses it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import galdiff.export  # noqa: F401 - images.galdiff.to_fits
from galdiff.atomic import resource_errors, write_text
from galdiff.config import fit_settings
from galdiff.config.theory import check_options
from galdiff.data import CutoutDataset
from galdiff.errors import GaldiffError, ResourceError
from galdiff.memory import machine_memory
from galdiff.model import DiffusionModel, resolve_device
from galdiff.pipeline import run
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Votes

__all__ = ["LatentDiffusion"]

_SEEDS = 2**63  # seeds are int64
_TITLE = "# A galdiff model"


class LatentDiffusion:
    """Conditional latent diffusion: images with the morphology or substructure that is asked for.

    Use `load` for what ``galdiff-train`` wrote, or `fit` to train from Python.

    Parameters
    ----------
    model : DiffusionModel
        The trained parts.

    Examples
    --------
    >>> model = LatentDiffusion.load("runs/quickstart")  # doctest: +SKIP
    >>> model.sample(16, votes={"spiral": 0.9}, seed=0)  # doctest: +SKIP
    """

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model

    @property
    def schema(self) -> ConditionSchema:
        """What the model can be asked for."""
        return self.model.schema

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", ema: float | None = None) -> LatentDiffusion:
        """Read a run directory or what `save` wrote.

        Parameters
        ----------
        folder : path-like
            The folder.
        device : str
            "auto", "cpu", "cuda" or "cuda:1".
        ema : float, optional
            Length of the power-function average of the weights, such as 0.08, of a run that was trained with
            ``denoiser.ema: {lengths: [0.05, 0.1]}``; by default the one that was saved.

        Raises
        ------
        CheckpointError
            Where there is no finished denoiser, a part is damaged, or there are no snapshots to average.
        """
        return cls(DiffusionModel.load(folder, device=resolve_device(device), ema=ema))

    @classmethod
    def fit(
        cls,
        dataset: CutoutDataset,
        folder: str | Path,
        *,
        device: str = "auto",
        budget: tuple[float, float] | None = None,
        **sections: Any,
    ) -> LatentDiffusion:
        """Train on a dataset; called again after an interruption, it goes on.

        Parameters
        ----------
        dataset : CutoutDataset
            Any of galdiff's datasets, or your own subclass.
        folder : path-like
            The run directory.
        device : str
            "auto", "cpu", "cuda" or "cuda:1".
        budget : pair of float, optional
            Seconds of training for autoencoder and denoiser, instead of their counts of images.
        **sections
            Sections of a catalog file: ``seed=3``, ``autoencoder={"images": 50_000}`` or ``{"kind": "identity"}``,
            ``denoiser={"backbone": "dit"}``, …; the rest have defaults.

        Raises
        ------
        CatalogFileError
            Where a section is wrong, with every problem.
        """
        stages = ("cutouts", "autoencoder", "latents", "denoiser")
        settings = fit_settings(sections, bands=len(dataset.bands), size=dataset.size, schema=dataset.schema)
        run(folder, lambda: dataset, settings, stages=stages, device=device, budget=budget or (None, None))
        return cls.load(folder, device=device)

    def save(self, folder: str | Path) -> None:
        """Write a folder that needs nothing else: ``autoencoder/``, ``denoiser/`` (each loads alone), a model card.

        Raises
        ------
        ResourceError
            Where there is a file in its place, a run folder or another README, or it cannot be written.
        """
        folder = Path(folder)
        card, remedy = folder / "README.md", "Save into a folder of its own"
        if (folder / "stages").is_dir():
            raise ResourceError("is a run folder, whose weights are its own", where=folder, remedy=remedy)
        if card.is_file() and not card.read_bytes().startswith(_TITLE.encode()):
            raise ResourceError("is of something else", where=card, remedy=remedy)
        with resource_errors(folder):
            self.model.save(folder)
        write_text(card, self._card())

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | Mapping[str, float] | None = None,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
        noise: bool = True,
        batch: int = 64,
        units: str | None = None,
        precision: str = "float32",
        **conditions: Any,
    ) -> xr.DataArray:
        """Draw images.

        Parameters
        ----------
        n : int
            How many.
        seed : int
            Number of the first sample; sample ``seed + i`` is the same image in any call, batch or machine.
        steps : int, optional
            Sampler steps; by default the catalog file's, or of another sampler what that kind wants.
        guidance : float or mapping, optional
            Weight of classifier-free guidance: 1 is the conditional model as trained, above exaggerates what is asked
            for, 0 ignores it; or weights by the names of conditions and answers, such as ``{"spiral": 2}``, the others
            having 1. By default the catalog file's; none where no condition is given.
        sampler : str, optional
            "heun", "dpmpp_2m", "unipc", "euler", "ddim", "ddpm" or "sde_dpmpp_2m".
        options : mapping, optional
            Other keys of the catalog file's section sampling: ``grid``, ``shift``, ``rho``, ``eta``, ``noise_scale``,
            ``interval``, ``rescale``, ``floor``. Those of the sampler and its grid are by default the catalog file's
            with its own sampler alone.
        noise : bool
            With the sky noise; False gives the mean image.
        batch : int
            Samples at once; no sample depends on it.
        units : {"physical", "stretched"}, optional
            "physical" insists on the unit of the training images, with their zero point and pixel scale among the
            attributes where they are known; it is refused of a model of display units, whose images hold no flux.
            "stretched" gives what the networks see, about [-1, 1]. By default the training images' own.
        precision : {"float32", "bfloat16"}
            Of the denoiser's products: in float32 a sample is the same on any machine to 1e-4, bfloat16 is faster on a
            GPU.
        **conditions
            Fields of `schema`: a class name, a number, or for votes a mapping such as ``votes={"spiral": 0.9}``, which
            fixes those answers, renormalizes within their question and masks the others. A sequence of ``n`` values
            asks sample by sample. What is not named is left open.

        Returns
        -------
        xarray.DataArray
            Pixel values ``(sample, band, y, x)``, float32, in the unit of the training images (``attrs["units"]``),
            with the seeds and the conditions as coordinates; `images.galdiff.to_fits(folder)` writes them as FITS
            stamps.

        Raises
        ------
        GaldiffError
            For an unknown condition, class or answer, with the nearest known one, for units that the model's images do
            not have, counts and seeds that are no whole numbers, guidance that is negative or not finite, and options
            that are none, given twice, or do not go together or with the model; for more than memory holds.
        """
        if not _is_whole(n) or n < 1:
            raise GaldiffError(f"cannot draw {n!r} samples", remedy="Ask for one or more")
        needed, there = 2 * 4 * n * len(self.model.format.bands) * self.model.format.size**2, machine_memory()
        if needed > there:  # in batches and joined
            message = (
                f"{n} samples need {needed / 2**30:.3g} GiB of memory, and the machine has {there / 2**30:.3g} GiB"
            )
            raise ResourceError(message, remedy="Draw fewer at a time: a later seed goes on where these end")
        if not _is_whole(seed) or not 0 <= seed <= _SEEDS - n:
            raise GaldiffError(f"{seed!r} is no seed", remedy="Give a whole number from 0 on, below 2**63")
        if not _is_whole(batch) or batch < 1:
            raise GaldiffError(f"cannot draw {batch!r} samples at once", remedy="Draw one or more")
        if steps is not None and not _is_whole(steps):
            raise GaldiffError(f"{steps!r} steps are no whole number", remedy="Give a whole number")
        for weight in guidance.values() if isinstance(guidance, Mapping) else [guidance]:
            if weight is not None and not (isinstance(weight, Real) and 0 <= weight < math.inf):
                raise GaldiffError(f"{weight!r} is no weight of guidance", remedy="Give a finite number from 0 on")
        stretched = self._is_stretched(units)
        asked = self.schema.ask(n, conditions)
        named = {"sampler": sampler, "steps": steps, "guidance": guidance}
        given, named = check_options(options or {}), {k: v for k, v in named.items() if v is not None}
        if twice := [name for name in named if given.get(name) is not None]:
            raise GaldiffError(f"{twice[0]} is given twice", remedy="Leave it out of the options")
        chosen = {**given, **named}
        if not conditions and not isinstance(chosen.get("guidance"), Mapping):
            chosen["guidance"] = 1.0  # nothing is asked for that could be exaggerated: the same images at half the cost
        drawn = self.model.sampler(**chosen)
        seeds = operator.index(seed) + torch.arange(n)
        parts = self.model.generate(
            drawn, seeds, asked, noise=noise, batch=batch, stretched=stretched, precision=precision
        )
        images = torch.cat(list(parts))
        used = {**self.model.options(**chosen), "steps": drawn.steps}
        coords = {"seed": ("sample", seeds.numpy()), **condition_coordinates(self.schema, asked)}
        return self._array(images.numpy(), coords, {**used, "units": "stretched"} if stretched else used)

    def compile(self) -> LatentDiffusion:
        """Compile the denoiser, and return the model: a minute for the first batch, the later ones of its size faster.

        It pays on a GPU, from some thousand samples on.
        """
        self.model.denoiser.backbone.compile()
        return self

    def reconstruct(self, images: Any, *, noise: bool = False) -> xr.DataArray:
        """Encode and decode.

        Parameters
        ----------
        images : array_like
            Pixel values ``(sample, band, y, x)`` of the model's size.
        noise : bool
            With a draw of the sky noise.

        Returns
        -------
        xarray.DataArray
            Same shape and unit.

        Raises
        ------
        GaldiffError
            For another shape, and for values that are NaN or infinite.
        """
        try:
            pixels = torch.as_tensor(np.asarray(images, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise GaldiffError(f"images are no array of numbers: {error}") from error
        expected = (len(self.model.format.bands), self.model.format.size, self.model.format.size)
        if tuple(pixels.shape[1:]) != expected or not len(pixels):
            raise GaldiffError(
                f"images are {tuple(pixels.shape)}, the model's are (n, {', '.join(map(str, expected))})"
            )
        if bad := int((~pixels.isfinite()).sum()):
            raise GaldiffError(f"{bad} pixel values are NaN or infinite", remedy="Fill them first, such as by the sky")
        return self._array(self.model.reconstruct(pixels, noise=noise).numpy(), {}, {})

    def _is_stretched(self, units: str | None) -> bool:
        if units not in (None, "physical", "stretched"):
            raise GaldiffError(f"unknown units '{units}'", remedy="Known: physical, stretched")
        if units == "physical" and self.model.format.unit == "display":
            reason = "this model was trained on 8-bit pictures, whose brightness is no flux"
            raise GaldiffError(
                f"there are no physical units: {reason}", remedy="Leave units out, or train on FITS data"
            )
        return units == "stretched"

    def _array(self, images: np.ndarray, coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> xr.DataArray:
        bands = {"band": list(self.model.format.bands)}
        if "units" not in attrs:
            attrs = {"units": self.model.format.unit, **self.model.format.calibration(), **attrs}
        return xr.DataArray(images, dims=("sample", "band", "y", "x"), coords={**bands, **coords}, attrs=attrs)

    def _card(self) -> str:
        image = self.model.format
        fields = "\n".join(f"- `{f.name}` ({f.kind})" for f in self.schema.fields) or "- none"
        return (
            f"{_TITLE}\n\n"
            f"Images of {image.size} x {image.size} pixels, bands {', '.join(image.bands)}, unit `{image.unit}`.\n\n"
            f"Conditions:\n\n{fields}\n\n"
            "```python\nfrom galdiff import LatentDiffusion\n\n"
            'model = LatentDiffusion.load("this folder")\nimages = model.sample(16, seed=0)\n```\n'
        )


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def condition_coordinates(schema: ConditionSchema, conditions: Conditions) -> dict[str, tuple[Any, np.ndarray]]:
    """Return conditions as coordinates along ``sample``: class names, numbers, vote fractions; NaN or "" where open."""
    coords: dict[str, tuple[Any, np.ndarray]] = {}
    for field in schema.fields:
        value, mask = conditions.values[field.name].numpy(), conditions.masks[field.name].numpy()
        if isinstance(field, Class):
            coords[field.name] = ("sample", np.where(mask, np.asarray(field.classes)[value], ""))
        elif isinstance(field, Votes):
            for q, question in enumerate(field.tree.questions):
                columns = field.tree.answer_slice(q)
                votes = value[:, columns]
                fractions = votes / np.maximum(votes.sum(1, keepdims=True), 1e-9)
                for answer, fraction in zip(question.answers, fractions.T, strict=True):
                    if mask[:, q].any():
                        coords[answer.alias] = ("sample", np.where(mask[:, q], fraction, np.nan).astype(np.float32))
        else:
            coords[field.name] = ("sample", np.where(mask, value, np.nan).astype(np.float32))
    return coords
