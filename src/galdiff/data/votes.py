r"""Votes of a table: which format it is, and the votes on every answer of the tree.

With the fractions :math:`f_{qa}` of the answers of a question and the votes :math:`n_q` on it, an answer has

.. math:: v_{qa} = n_q \, f_{qa} / \sum_b f_{qb} .

Where a table has no counts, :math:`n_q` is declared. The Kaggle challenge's values are probabilities of the whole path,
so that :math:`n_q = N r_q` with the declared N and the reach :math:`r_q`, the sum of the answers that lead to the
question; a question that nobody reached is masked. Where a table lacks one answer of a question, it is the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from galdiff.data.tables import column_names, find_column, refuse_absent
from galdiff.errors import DataError, nearest_name
from galdiff.schema.conditions import Conditions
from galdiff.schema.voteformats import VOTE_FORMATS, VoteFormat

__all__ = ["QuestionColumns", "detect_format", "outside", "read_votes", "vote_columns"]

_TOLERANCE = 1e-6  # of fractions above one, which some tables round up


@dataclass(frozen=True)
class QuestionColumns:
    """Where a table has the votes on a question.

    Attributes
    ----------
    answers : mapping
        From the answer's place in the tree to its column; at most one answer of the question lacks one.
    counts : tuple of str
        Columns that sum to the votes on the question; empty where there are none.
    are_counts : bool
        The columns of the answers are counts, not fractions.
    """

    answers: Mapping[int, str]
    counts: tuple[str, ...]
    are_counts: bool = False


def detect_format(
    table: pd.DataFrame, path: Path, *, name: str | None = None, id: str | None = None, own: bool = False
) -> tuple[VoteFormat, str]:
    """Tell the format of a table of votes, and its column of ids.

    Parameters
    ----------
    table : pandas.DataFrame
        Only its columns count.
    path : Path
        Where it is from, for messages.
    name : str, optional
        The declared format; by default the first one whose columns are there.
    id : str, optional
        The declared column of ids.
    own : bool
        The columns of the answers have other names, so that the column of ids alone decides.

    Raises
    ------
    DataError
        Where no format fits, with what each would need.
    """
    if name is not None and name not in VOTE_FORMATS:
        raise DataError(f"unknown table_format '{name}'", remedy=f"Known: {', '.join(VOTE_FORMATS)}")
    if id is not None:
        find_column(table, id, path)
    looked_for = []
    columns = column_names(table)
    for layout in VOTE_FORMATS.values() if name is None else [VOTE_FORMATS[name]]:
        key = next((c for c in ([id] if id is not None else layout.ids) if c in columns), None)
        kinds = layout.fractions
        if key is not None and (own or any(_questions(layout, kind, columns) for kind in kinds)):
            return layout, find_column(table, key, path)
        first = layout.stems[0] + next(iter(kinds.values()))
        looked_for.append(f"{layout.name}: {' or '.join([id] if id is not None else layout.ids)}, {first}, …")
    what = "is no table of votes of a known format" if name is None else f"is no {name} table"
    has = ", ".join(map(str, table.columns[:6]))
    remedy = f"Name its columns with 'id' and 'columns': it has {has}, …; looked for {'; '.join(looked_for)}"
    raise DataError(what, where=path, remedy=remedy)


def vote_columns(
    table: pd.DataFrame,
    layout: VoteFormat,
    path: Path,
    *,
    kind: str | None = None,
    columns: Mapping[str, str] | None = None,
    count: float | Mapping[str, float] | None = None,
) -> dict[int, QuestionColumns]:
    """Find the columns of every question that the table has.

    Parameters
    ----------
    table, path
        As in `detect_format`.
    layout : VoteFormat
        Its format.
    kind : str, optional
        Which fractions; by default the format's first.
    columns : mapping, optional
        From answers to columns of other names.
    count : float or mapping, optional
        Votes a question, or from questions to votes; other questions need counts in the table, or are left out.

    Raises
    ------
    DataError
        For a kind that the table has not, an unknown column, question or answer, or where there are no counts.
    """
    kind = kind or next(iter(layout.fractions))
    if kind not in layout.fractions:
        remedy = f"Known: {', '.join(layout.fractions)}"
        raise DataError(f"a table of {layout.title} has no '{kind}' votes", where=path, remedy=remedy)
    known = [question.name for question in layout.tree.questions]
    for name in count if isinstance(count, Mapping) else ():
        if name not in known:
            near = nearest_name(name, known)
            remedy = f"Did you mean '{near}'?" if near else f"Known: {', '.join(known)}"
            raise DataError(f"'count' names '{name}', which is no question", remedy=remedy)
    there = column_names(table)
    found = _questions(layout, kind, there) if columns is None else _own_columns(table, layout, path, columns)
    if not found:
        suffix = layout.fractions[kind]
        remedy = f"Looked for {layout.stems[0]}{suffix}, {layout.stems[1]}{suffix}, …; set 'votes' to what it has"
        raise DataError(f"the table has no '{kind}' votes", where=path, remedy=remedy)
    used = [column for here in found.values() for column in (*here.answers.values(), *here.counts)]
    refuse_absent(table, dict.fromkeys(used), path)
    for q, here in found.items():
        if not here.counts and count is None:
            per = "volunteers an object" if layout.cumulative else "votes a question"
            remedy = f"Declare the {per} with 'count'"
            raise DataError(f"there are no counts for '{known[q]}'", where=path, remedy=remedy)
    return {q: here for q, here in found.items() if here.counts or not isinstance(count, Mapping) or known[q] in count}


def _questions(layout: VoteFormat, kind: str, there: Set[str]) -> dict[int, QuestionColumns]:
    found = {}
    for q, question in enumerate(layout.tree.questions):
        span = layout.tree.answer_slice(q)
        stems = dict(enumerate(layout.stems[span], span.start))
        named = {a: stem + layout.fractions[kind] for a, stem in stems.items()}
        named = {a: column for a, column in named.items() if column in there}
        counts = () if layout.count is None else tuple(stem + layout.count for stem in stems.values())
        counted = bool(counts) and there >= set(counts)
        total = layout.totals[q : q + 1]
        sources = counts if counted else total if total and total[0] in there else ()
        # Path probabilities have a rest only at the root, where the total is known to be one.
        lacking = len(question.answers) - len(named)
        if lacking == 0 or (lacking == 1 and not (layout.cumulative and layout.tree.parents(q))):
            found[q] = QuestionColumns(named, sources)
        elif counted and kind == "fraction":
            found[q] = QuestionColumns(dict(zip(stems, counts, strict=True)), counts, are_counts=True)
    return found


def _own_columns(
    table: pd.DataFrame, layout: VoteFormat, path: Path, columns: Mapping[str, str]
) -> dict[int, QuestionColumns]:
    named: dict[int, dict[int, str]] = {}
    for answer, column in columns.items():
        q, a = layout.tree.find(answer)
        named.setdefault(q, {})[a] = find_column(table, column, path)
    counted = _questions(layout, next(iter(layout.fractions)), column_names(table))
    for q, here in named.items():
        question = layout.tree.questions[q]
        if len(here) < len(question.answers) - 1:
            remedy = f"It has {', '.join(a.alias for a in question.answers)}: name the columns of all, or all but one"
            raise DataError(f"'columns' leaves answers of '{question.name}' out", where=path, remedy=remedy)
    return {q: QuestionColumns(here, counted[q].counts if q in counted else ()) for q, here in sorted(named.items())}


def outside(table: pd.DataFrame, path: Path, found: Mapping[int, QuestionColumns]) -> np.ndarray:
    """Rows with a fraction outside [0, 1] or a negative count, bool ``(n,)``; one that is absent is not.

    Raises
    ------
    DataError
        For a column that does not hold numbers.
    """
    bad = np.zeros(len(table), bool)
    for here in found.values():
        for column in (*here.answers.values(), *here.counts):
            values = _numbers(table, column, path)
            most = np.inf if here.are_counts or column in here.counts else 1 + _TOLERANCE
            bad |= (values < 0) | (values > most)
    return bad


def read_votes(
    table: pd.DataFrame,
    layout: VoteFormat,
    path: Path,
    found: Mapping[int, QuestionColumns],
    *,
    count: float | Mapping[str, float] | None = None,
) -> tuple[Conditions, pd.DataFrame]:
    """Read votes per answer and masks per question.

    Parameters
    ----------
    table, layout, path, count
        As in `vote_columns`.
    found : mapping
        What `vote_columns` found.

    Returns
    -------
    Conditions
        The field ``votes``.
    pandas.DataFrame
        The sums of the values as they stand in the table, columns ``<question>_sum``.

    Raises
    ------
    DataError
        For a column that does not hold numbers.
    """
    tree, n = layout.tree, len(table)
    values = np.zeros((n, len(tree.answers)), np.float32)
    masks = np.zeros((n, len(tree.questions)), bool)
    sums = {}
    for q, here in found.items():
        span = tree.answer_slice(q)
        shares = np.column_stack([_numbers(table, column, path) for column in here.answers.values()])
        total = shares.sum(axis=1)
        if here.are_counts:
            shares, total = shares / np.where(total > 0, total, 1)[:, None], np.where(total > 0, 1.0, 0.0)
        sums[f"{tree.questions[q].name}_sum"] = np.nan_to_num(total)
        reach = _reach(table, layout, path, q, found, total)
        answers = list(here.answers)
        rest = [a for a in range(span.start, span.stop) if a not in here.answers]
        if rest:
            shares = np.column_stack([shares, np.maximum(reach - total, 0)])
            total = shares.sum(axis=1)
        votes = _votes_on(table, path, tree.questions[q].name, here, count) * reach
        reached = (total > 0) & (votes > 0)  # False where anything is absent
        scale = np.divide(votes, total, out=np.zeros(n), where=reached)
        values[:, answers + rest] = np.where(reached[:, None], scale[:, None] * shares, 0)
        masks[:, q] = reached
    return Conditions({"votes": torch.from_numpy(values)}, {"votes": torch.from_numpy(masks)}), pd.DataFrame(sums)


def _reach(
    table: pd.DataFrame,
    layout: VoteFormat,
    path: Path,
    q: int,
    found: Mapping[int, QuestionColumns],
    total: np.ndarray,
) -> np.ndarray:
    """Share of the volunteers that came to a question, by the answers before it; one where the table has counts."""
    parents = layout.tree.parents(q)
    if not layout.cumulative or not parents:
        return np.ones(len(table))
    columns = {a: column for here in found.values() for a, column in here.answers.items()}
    if not columns.keys() >= set(parents):
        return np.minimum(total, 1)  # which by construction is the same
    return np.minimum(np.sum([_numbers(table, columns[a], path) for a in parents], axis=0), 1)


def _votes_on(
    table: pd.DataFrame, path: Path, question: str, here: QuestionColumns, count: float | Mapping[str, float] | None
) -> np.ndarray:
    declared = count.get(question) if isinstance(count, Mapping) else count
    if declared is not None:
        return np.full(len(table), float(declared))
    return np.sum([_numbers(table, column, path) for column in here.counts], axis=0)


def _numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    try:
        return table[column].to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"column '{column}' holds what are not numbers: {error}", where=path) from error
