"""What trained judges say of a run: they learn from its training split and are read on samples and held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from galdiff.imageformat import ImageFormat
from galdiff.judges import (
    Classifier,
    MorphologyEncoder,
    ScalarJudge,
    VoteJudge,
    class_figures,
    recovery_figures,
    transfer_figures,
    vote_figures,
)
from galdiff.metrics import FeatureSpace, Figure
from galdiff.metrics.votes import VoteComparison
from galdiff.pipeline.sets import Evaluation, Labeled
from galdiff.schema.conditions import Class, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import QuestionTree

__all__ = ["EncoderFeatures", "Judging", "is_lenses"]

_MINIMUM = 50
"""Held-out images, and training images of a class, below which no judge of classes is trained."""
_LEARNED = 500
"""Training images below which judges of votes, and encoders, learn nothing that could be trusted."""
_BINS = 10
_FEWEST = 5.0  # galaxies that reached a question, in a bin
_PROTOCOL = "judge trained on the training split"
_SUBSTRUCTURE = {"no_sub", "cdm", "axion"}


def is_lenses(schema: ConditionSchema) -> bool:
    """Return whether the data are strong lenses: a class of theirs is one of substructure."""
    return any(isinstance(f, Class) and _SUBSTRUCTURE & set(f.classes) for f in schema.fields)


class EncoderFeatures(FeatureSpace):
    """Features of a run's own morphology encoder, trained before images are compared.

    Parameters
    ----------
    encoder : MorphologyEncoder
        Trained on the real training split.
    image_format : ImageFormat
        Whose stretch the encoder was trained under.
    trained : str
        On what, for the protocol.
    """

    name = "morphology-encoder"

    def __init__(self, encoder: MorphologyEncoder, image_format: ImageFormat, trained: str) -> None:
        self._encoder, self._stretch, self._trained = encoder, image_format.stretch, trained
        self.width = int(encoder.spec["features"])

    @property
    def protocol(self) -> str:
        """The encoder and what it learned from."""
        return f"{self.name}, {self._trained}"

    def fit(self, images: np.ndarray, unit: str, *, source: str = "real images") -> None:
        """Nothing: the encoder standardises by the images it was trained on."""

    def measure(self, images: np.ndarray) -> np.ndarray:
        """Return the features of pixel values."""
        return self._encoder.features(self._stretch(images))


@dataclass(frozen=True)
class Judging:
    """Images of a run that judges are trained on and read on.

    Attributes
    ----------
    image_format : ImageFormat
        Bands and stretch.
    schema : ConditionSchema
        Conditions of the model.
    train, real, generated : Labeled
        Of the training split; all that are held out; samples with what was asked for.
    seed : int
        Of weights, order and bootstrap.
    """

    image_format: ImageFormat
    schema: ConditionSchema
    train: Labeled
    real: Labeled
    generated: Labeled
    seed: int = 0

    @cached_property
    def _lesson(self) -> np.ndarray:
        return np.asarray(self.image_format.stretch(self.train.images))

    def _seen(self, judge: Classifier | ScalarJudge | VoteJudge, labeled: Labeled) -> np.ndarray:
        return judge.predict(self.image_format.stretch(labeled.images))

    def _unlearned(self, names: Sequence[str], known: int, needed: int = _LEARNED) -> list[Figure]:
        """Return what stands in place of a judge's figures where too few training images are known; else nothing."""
        note = f"{known} training images, {needed} needed"
        return [Figure.too_few(n, len(self.real), _PROTOCOL, note) for n in names] if known < needed else []

    def classes(self, *, transfer: int = 0) -> Evaluation:
        """Judge the first class field: ranks, decisions and how sure they are (`class_figures`).

        Parameters
        ----------
        transfer : int
            Images that judges see which are trained on samples, and on as many real ones (`transfer_figures`); 0 trains
            none.
        """
        field = next((f for f in self.schema.fields if isinstance(f, Class)), None)
        if field is None:
            return Evaluation([])
        train, generated, real = (part.where_known(field.name) for part in (self.train, self.generated, self.real))
        if few := self._unlearned(["class_accuracy"], len(train), _MINIMUM * len(field.classes)):
            return Evaluation(few)
        if (n := min(len(generated), len(real))) < _MINIMUM:
            return Evaluation([Figure.too_few("class_accuracy", n, _PROTOCOL, needed=_MINIMUM)])
        labels, asked, truth = (part.conditions.values[field.name].numpy() for part in (train, generated, real))
        lesson = self._lesson if train is self.train else self.image_format.stretch(train.images)
        judge = Classifier(len(self.image_format.bands), len(field.classes))
        judge.fit(lesson, labels, seed=self.seed, field=field)
        figures = class_figures(
            self._seen(judge, generated),
            asked,
            self._seen(judge, real),
            truth,
            field,
            frequency=np.bincount(labels, minlength=len(field.classes)),
            seed=self.seed,
        )
        note = "the floor is that of held-out real images; samples at guidance 1"
        if transfer:
            drawn, held_out = (self.image_format.stretch(part.images) for part in (generated, real))
            figures += transfer_figures(
                drawn, asked, lesson, labels, held_out, truth, field, seed=self.seed, seen=transfer
            )
        return Evaluation([replace(f, note="; ".join(filter(None, (note, f.note)))) for f in figures])

    def scalars(self, seen: int) -> Evaluation:
        """Judge the numbers, angles aside: whether samples show those that were asked for (`recovery_figures`).

        The curves ``numbers_asked``, ``numbers_found`` and ``numbers_found_real`` ``(number, bin)`` are means by
        tenths of the asked ones; NaN where there are fewer than five.

        Parameters
        ----------
        seen : int
            Images that the judge is trained on.
        """
        fields = [f for f in self.schema.fields if isinstance(f, Scalar) and not f.angle]
        if not fields:
            return Evaluation([])
        lesson = np.stack([self.train.numbers(f.name) for f in fields], axis=1)
        known = np.isfinite(lesson).sum(axis=0)
        if few := self._unlearned([f"recovered_slope[{f.name}]" for f in fields], int(known.max())):
            return Evaluation(few)
        judge = ScalarJudge(len(self.image_format.bands), fields)
        judge.fit(self._lesson, lesson, seed=self.seed, seen=seen)
        found, real = self._seen(judge, self.generated), self._seen(judge, self.real)
        figures, rows = [], []
        for column, field in enumerate(fields):
            name = field.name
            options: dict[str, Any] = {"reader": _PROTOCOL, "unit": field.unit, "seed": self.seed}
            given = (self.generated.numbers(name), real[:, column], self.real.numbers(name))
            figures += recovery_figures(found[:, column], *given, name, **options)
            rows.append(
                _by_rank(self.generated.numbers(name), found[:, column], self.real.numbers(name), real[:, column])
            )
        curves = zip(("numbers_asked", "numbers_found", "numbers_found_real"), np.swapaxes(rows, 0, 1), strict=True)
        titles = [f"{field.name} [{field.unit}]" if field.unit else field.name for field in fields]
        title = ("number", np.asarray(titles, dtype=object))
        dims = ("number", "bin")
        return Evaluation(figures, xr.Dataset({name: (dims, c) for name, c in curves} | {"numbers_title": title}))

    def votes(self, seen: int, *, draws: int = 20) -> Evaluation:
        """Judge the votes: whether volunteers would see what was asked for (`vote_figures`).

        The floor is what it sees in held-out images, whose votes are known. The curves ``votes_asked``, ``votes_found``
        and ``votes_found_real`` ``(question, bin)`` are means of fractions, weighted by reach, in ten bins of the asked
        one from 0 to 1, all answers of a question together; NaN where fewer than five reached it.

        Parameters
        ----------
        seen : int
            Images that the judge is trained on.
        draws : int
            Bootstrap draws.
        """
        field = next((f for f in self.schema.fields if isinstance(f, Votes)), None)
        if field is None:
            return Evaluation([])
        if few := self._unlearned(["votes"], len(self.train)):
            return Evaluation(few)
        name, tree = field.name, field.tree
        known = self.train.conditions
        judge = VoteJudge(len(self.image_format.bands), tree)
        judge.fit(self._lesson, known.values[name], known.masks[name], seed=self.seed, seen=seen)
        votes = [part.values[name].numpy() for part in (self.generated.conditions, self.real.conditions)]
        masks = [part.masks[name].numpy() for part in (self.generated.conditions, self.real.conditions)]
        found, real = self._seen(judge, self.generated), self._seen(judge, self.real)
        figures = vote_figures(found, votes[0], masks[0], real, votes[1], masks[1], tree, seed=self.seed, draws=draws)
        asked, drawn = _by_asked(found, votes[0], masks[0], tree)
        _, floor = _by_asked(real, votes[1], masks[1], tree)
        dims = ("question", "bin")
        curves: dict[str, Any] = {
            "votes_title": ("question", np.asarray([q.name for q in tree.questions], dtype=object)),
            "votes_asked": (dims, asked),
            "votes_found": (dims, drawn),
            "votes_found_real": (dims, floor),
        }
        return Evaluation(figures, xr.Dataset(curves))

    def too_few_to_encode(self) -> list[Figure]:
        """Return what an evaluation has in place of an encoder's distances where there is little to learn from."""
        return self._unlearned([f"FD[{EncoderFeatures.name}]"], len(self.train))

    def encoder(self, seen: int, folder: Path) -> EncoderFeatures:
        """Train the morphology encoder and keep it.

        Parameters
        ----------
        seen : int
            Images to train on, each in two views.
        folder : Path
            Where it is kept.
        """
        encoder = MorphologyEncoder(len(self.image_format.bands), self.schema)
        encoder.fit(self._lesson, self.train.conditions, seed=self.seed, seen=seen)
        encoder.save(folder)
        trained = f"{seen} views of {len(self.train)} training images, seed {self.seed}"
        return EncoderFeatures(encoder, self.image_format, trained)


def _by_rank(asked: np.ndarray, found: np.ndarray, truth: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return mean asked and found numbers by tenths of the asked ones, and found ones of real images, ``(3, bin)``."""
    if not np.isfinite(asked).any():
        return np.full((3, _BINS), np.nan)
    edges = np.nanquantile(asked, np.linspace(0, 1, _BINS + 1)[1:-1])
    means = []
    for by, values in ((asked, asked), (asked, found), (truth, real)):
        known = np.isfinite(by) & np.isfinite(values)
        place = np.searchsorted(edges, by[known])
        count = np.bincount(place, minlength=_BINS)
        total = np.bincount(place, values[known], minlength=_BINS)
        means.append(np.where(count >= _FEWEST, total / np.maximum(count, 1), np.nan))
    return np.stack(means)


def _by_asked(
    concentrations: np.ndarray, votes: np.ndarray, mask: np.ndarray, tree: QuestionTree
) -> tuple[np.ndarray, np.ndarray]:
    """Mean asked and found fractions ``(question, bin)`` by the asked one, all answers of a question together."""
    rows = VoteComparison(concentrations, votes, mask, tree, simulations=1)
    asked, found = np.full((2, len(tree.questions), _BINS), np.nan)
    for q in range(len(tree.questions)):
        answers = tree.answer_slice(q)
        f, p = rows.asked[:, answers], rows.predicted[:, answers]
        weight = np.broadcast_to(rows.reach[:, [q]], f.shape).ravel()
        place = (f.ravel() * _BINS).astype(int).clip(0, _BINS - 1)
        total, *sums = (
            np.bincount(place, w, minlength=_BINS) for w in (weight, weight * f.ravel(), weight * p.ravel())
        )
        there = total >= _FEWEST
        asked[q, there], found[q, there] = (s[there] / total[there] for s in sums)
    return asked, found
