"""Question trees: questions, their answers, and which answer leads to which question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from galdiff.errors import GaldiffError, nearest_name

__all__ = ["GZ2_TREE", "GZ_DECALS_TREE", "KAGGLE_ANSWERS", "Answer", "Question", "QuestionTree"]


@dataclass(frozen=True)
class Answer:
    """An answer: its column stem in the catalog, a short alias, and the question it leads to (None: the end)."""

    name: str
    alias: str
    leads_to: str | None = None


@dataclass(frozen=True)
class Question:
    """A question with its answers, in the order of the catalog."""

    name: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class QuestionTree:
    """An ordered decision tree; the answers of all questions in order are the columns of a votes tensor.

    Parameters
    ----------
    name : str
        Name of the tree.
    questions : tuple of Question
        In the order of the catalog.
    mirror : tuple of pairs of str
        Answers (names or aliases) of one question that are each other's mirror image, such as clockwise and
        anticlockwise: a reflection of the image swaps their votes, a rotation does not.

    Raises
    ------
    GaldiffError
        For a mirror pair that is not of one question, or an answer that is in two.
    """

    name: str
    questions: tuple[Question, ...]
    mirror: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        pairs = [(self.find(a), self.find(b)) for a, b in self.mirror]
        columns = [column for pair in pairs for _, column in pair]
        if any(a[0] != b[0] for a, b in pairs) or len(set(columns)) != len(columns):
            remedy = "Pair two answers of one question, each answer once"
            raise GaldiffError(f"the mirror pairs of {self.name} are none", remedy=remedy)

    def mirrored(self) -> list[int]:
        """Return the column of every answer's mirror image."""
        order = list(range(len(self.answers)))
        for a, b in self.mirror:
            i, j = self.find(a)[1], self.find(b)[1]
            order[i], order[j] = j, i
        return order

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """Every answer in order."""
        return tuple(a for q in self.questions for a in q.answers)

    @cached_property
    def _names(self) -> dict[str, tuple[int, int]]:
        names: dict[str, tuple[int, int]] = {}
        column = 0
        for q, question in enumerate(self.questions):
            for answer in question.answers:
                for name in (answer.name, answer.alias):
                    if names.setdefault(name, (q, column)) != (q, column):
                        raise ValueError(f"tree {self.name}: the answer name {name} is used twice")
                column += 1
        return names

    def answer_slice(self, question: int) -> slice:
        """Columns of a question's answers."""
        start = sum(len(q.answers) for q in self.questions[:question])
        return slice(start, start + len(self.questions[question].answers))

    def find(self, answer: str) -> tuple[int, int]:
        """Question index and answer column of an answer's name or alias.

        Raises
        ------
        GaldiffError
            For an unknown answer, with the nearest known one.
        """
        if answer not in self._names:
            near = nearest_name(answer, self._names)
            hint = f"Did you mean '{near}'?" if near else f"Known: {', '.join(a.alias for a in self.answers)}"
            raise GaldiffError(f"'{answer}' is not an answer of {self.name}", remedy=hint)
        return self._names[answer]

    def parents(self, question: int) -> list[int]:
        """Answer columns that lead to a question; empty for the first."""
        name = self.questions[question].name
        return [i for i, answer in enumerate(self.answers) if answer.leads_to == name]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description; `from_dict` is its inverse."""
        return {
            "name": self.name,
            "questions": {q.name: [[a.name, a.alias, a.leads_to] for a in q.answers] for q in self.questions},
            "mirror": [list(pair) for pair in self.mirror],
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> QuestionTree:
        """Build a tree from `to_dict`'s description."""
        return cls(
            tree["name"],
            tuple(Question(q, tuple(Answer(*answer) for answer in rows)) for q, rows in tree["questions"].items()),
            tuple((str(a), str(b)) for a, b in tree.get("mirror", ())),
        )


# Willett et al. 2013 (MNRAS 435, 2835), Table 2 and Figure 1; the stems are the columns of Hart et al. 2016.
_GZ2: dict[str, list[tuple[str, str, str | None]]] = {
    "t01_smooth_or_features": [
        ("t01_smooth_or_features_a01_smooth", "smooth", "t07_rounded"),
        ("t01_smooth_or_features_a02_features_or_disk", "features", "t02_edgeon"),
        ("t01_smooth_or_features_a03_star_or_artifact", "artifact", None),
    ],
    "t02_edgeon": [
        ("t02_edgeon_a04_yes", "edge_on", "t09_bulge_shape"),
        ("t02_edgeon_a05_no", "not_edge_on", "t03_bar"),
    ],
    "t03_bar": [("t03_bar_a06_bar", "bar", "t04_spiral"), ("t03_bar_a07_no_bar", "no_bar", "t04_spiral")],
    "t04_spiral": [
        ("t04_spiral_a08_spiral", "spiral", "t10_arms_winding"),
        ("t04_spiral_a09_no_spiral", "no_spiral", "t05_bulge_prominence"),
    ],
    "t05_bulge_prominence": [
        ("t05_bulge_prominence_a10_no_bulge", "no_bulge", "t06_odd"),
        ("t05_bulge_prominence_a11_just_noticeable", "just_noticeable_bulge", "t06_odd"),
        ("t05_bulge_prominence_a12_obvious", "obvious_bulge", "t06_odd"),
        ("t05_bulge_prominence_a13_dominant", "dominant_bulge", "t06_odd"),
    ],
    "t06_odd": [("t06_odd_a14_yes", "odd", "t08_odd_feature"), ("t06_odd_a15_no", "not_odd", None)],
    "t07_rounded": [
        ("t07_rounded_a16_completely_round", "round", "t06_odd"),
        ("t07_rounded_a17_in_between", "in_between", "t06_odd"),
        ("t07_rounded_a18_cigar_shaped", "cigar", "t06_odd"),
    ],
    "t08_odd_feature": [
        ("t08_odd_feature_a19_ring", "ring", None),
        ("t08_odd_feature_a20_lens_or_arc", "lens_or_arc", None),
        ("t08_odd_feature_a21_disturbed", "disturbed", None),
        ("t08_odd_feature_a22_irregular", "irregular", None),
        ("t08_odd_feature_a23_other", "other", None),
        ("t08_odd_feature_a24_merger", "merger", None),
        ("t08_odd_feature_a38_dust_lane", "dust_lane", None),
    ],
    "t09_bulge_shape": [
        ("t09_bulge_shape_a25_rounded", "rounded_bulge", "t06_odd"),
        ("t09_bulge_shape_a26_boxy", "boxy_bulge", "t06_odd"),
        ("t09_bulge_shape_a27_no_bulge", "no_edge_on_bulge", "t06_odd"),
    ],
    "t10_arms_winding": [
        ("t10_arms_winding_a28_tight", "tight", "t11_arms_number"),
        ("t10_arms_winding_a29_medium", "medium", "t11_arms_number"),
        ("t10_arms_winding_a30_loose", "loose", "t11_arms_number"),
    ],
    "t11_arms_number": [
        ("t11_arms_number_a31_1", "one_arm", "t05_bulge_prominence"),
        ("t11_arms_number_a32_2", "two_arms", "t05_bulge_prominence"),
        ("t11_arms_number_a33_3", "three_arms", "t05_bulge_prominence"),
        ("t11_arms_number_a34_4", "four_arms", "t05_bulge_prominence"),
        ("t11_arms_number_a36_more_than_4", "more_than_four_arms", "t05_bulge_prominence"),
        ("t11_arms_number_a37_cant_tell", "cannot_tell_arms", "t05_bulge_prominence"),
    ],
}

GZ2_TREE = QuestionTree.from_dict({"name": "gz2", "questions": _GZ2})
"""The decision tree of Galaxy Zoo 2."""

KAGGLE_ANSWERS = {
    f"Class{q}.{a}": answer.name
    for q, question in enumerate(GZ2_TREE.questions, 1)
    for a, answer in enumerate(question.answers, 1)
}
"""The columns of the Kaggle challenge's table: its classes are the tasks of Galaxy Zoo 2 and its answers, in order."""

# Walmsley et al. 2022 (MNRAS 509, 3966), Figure 4, as asked for DECaLS DR5 (GZD-5); stems as in the released catalogs.
_GZ_DECALS: dict[str, list[tuple[str, str, str | None]]] = {
    "smooth-or-featured": [
        ("smooth", "smooth", "how-rounded"),
        ("featured-or-disk", "features", "disk-edge-on"),
        ("artifact", "artifact", None),
    ],
    "disk-edge-on": [("yes", "edge_on", "edge-on-bulge"), ("no", "not_edge_on", "bar")],
    "has-spiral-arms": [("yes", "spiral", "spiral-winding"), ("no", "no_spiral", "bulge-size")],
    "bar": [
        ("strong", "strong_bar", "has-spiral-arms"),
        ("weak", "weak_bar", "has-spiral-arms"),
        ("no", "no_bar", "has-spiral-arms"),
    ],
    "bulge-size": [
        ("dominant", "dominant_bulge", "merging"),
        ("large", "large_bulge", "merging"),
        ("moderate", "moderate_bulge", "merging"),
        ("small", "small_bulge", "merging"),
        ("none", "no_bulge", "merging"),
    ],
    "how-rounded": [
        ("round", "round", "merging"),
        ("in-between", "in_between", "merging"),
        ("cigar-shaped", "cigar", "merging"),
    ],
    "edge-on-bulge": [
        ("boxy", "boxy_bulge", "merging"),
        ("none", "no_edge_on_bulge", "merging"),
        ("rounded", "rounded_bulge", "merging"),
    ],
    "spiral-winding": [
        ("tight", "tight", "spiral-arm-count"),
        ("medium", "medium", "spiral-arm-count"),
        ("loose", "loose", "spiral-arm-count"),
    ],
    "spiral-arm-count": [
        ("1", "one_arm", "bulge-size"),
        ("2", "two_arms", "bulge-size"),
        ("3", "three_arms", "bulge-size"),
        ("4", "four_arms", "bulge-size"),
        ("more-than-4", "more_than_four_arms", "bulge-size"),
        ("cant-tell", "cannot_tell_arms", "bulge-size"),
    ],
    "merging": [
        ("none", "not_merging", None),
        ("minor-disturbance", "minor_disturbance", None),
        ("major-disturbance", "major_disturbance", None),
        ("merger", "merger", None),
    ],
}

GZ_DECALS_TREE = QuestionTree.from_dict(
    {
        "name": "gz_decals",
        "questions": {q: [(f"{q}_{a}", alias, next_) for a, alias, next_ in rows] for q, rows in _GZ_DECALS.items()},
    }
)
"""The decision tree of Galaxy Zoo DECaLS (GZD-5)."""
