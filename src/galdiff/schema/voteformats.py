"""Formats of the published tables of votes, as data: which columns name the object, its answers and their counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from galdiff.schema.trees import GZ2_TREE, GZ_DECALS_TREE, KAGGLE_ANSWERS, QuestionTree

__all__ = ["VOTE_FORMATS", "VoteFormat"]


@dataclass(frozen=True)
class VoteFormat:
    """How one survey's table says what its volunteers answered.

    Parameters
    ----------
    name : str
        What ``table_format`` calls it.
    title : str
        What people call it.
    ids : tuple of str
        Columns that may name the object; the first one that is there does.
    tree : QuestionTree
        The questions.
    stems : tuple of str
        What the columns of every answer begin with, in the order of ``tree.answers``.
    fractions : mapping
        From a kind of votes to the suffix of its columns; the first kind is the default.
    count : str, optional
        Suffix of the columns of counts; None where there are none.
    totals : tuple of str
        Columns of the votes on every question, in the order of ``tree.questions``; empty where there are none.
    cumulative : bool
        The values are probabilities of the whole path: the answers of a question sum to the share that reached it.
    """

    name: str
    title: str
    ids: tuple[str, ...]
    tree: QuestionTree
    stems: tuple[str, ...]
    fractions: Mapping[str, str]
    count: str | None = None
    totals: tuple[str, ...] = ()
    cumulative: bool = False


def _gz2(name: str, title: str, *ids: str) -> VoteFormat:
    kinds = {"debiased": "_debiased", "weighted": "_weighted_fraction", "fraction": "_fraction"}
    return VoteFormat(name, title, ids, GZ2_TREE, tuple(a.name for a in GZ2_TREE.answers), kinds, "_count")


def _decals(name: str, title: str, release: str) -> VoteFormat:
    """Name the columns of a release: some catalogs append it to the question, as in ``bar-dr5_strong``."""
    tree = GZ_DECALS_TREE
    stems = [a.name.replace(q.name, q.name + release, 1) for q in tree.questions for a in q.answers]
    return VoteFormat(
        name,
        title,
        ("iauname", "iau", "id_str", "dr8_id", "subject_id"),
        tree,
        tuple(stems),
        {"fraction": "_fraction", "debiased": "_debiased"},
        "",
        tuple(f"{q.name}{release}_total-votes" for q in tree.questions),
    )


VOTE_FORMATS: dict[str, VoteFormat] = {
    layout.name: layout
    for layout in (
        _gz2("hart16", "Hart et al. 2016", "dr7objid"),
        _gz2("willett13", "Willett et al. 2013, Table 5", "objid", "OBJID"),
        VoteFormat(
            "kaggle",
            "the Kaggle challenge",
            ("GalaxyID",),
            GZ2_TREE,
            tuple(KAGGLE_ANSWERS),
            {"fraction": ""},
            cumulative=True,
        ),
        _decals("decals", "Galaxy Zoo DECaLS", ""),
        _decals("decals_dr5", "Galaxy Zoo DECaLS, with the release in the names", "-dr5"),
        _decals("decals_dr8", "Galaxy Zoo DESI, with the release in the names", "-dr8"),
    )
}
"""The known formats, by name, in the order in which they are looked for."""
