"""Verdicts as a report and a terminal show them: a word and a sign each, never a color alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from galdiff.metrics.figure import Verdict, judge
from galdiff.report.files import read_evaluation

__all__ = ["SIGNS", "number", "plain_name", "summary", "verdict_table"]

SIGNS: dict[Verdict, str] = {"pass": "✓", "look": "◐", "fail": "✗", "open": "–"}
"""What stands before the word, the worst last but for what is open."""


def plain_name(name: str, unit: str) -> str:
    """Name a figure honestly: sums of display values, which were stretched and clipped for the eye, are no flux."""
    return name.replace("flux", "light") if unit == "display" else name


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, "" where there is none."""
    return "" if value is None else f"{value:.{digits}g}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count verdicts in words, such as "7 pass, 2 look, 1 fail"."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in SIGNS if counts[verdict])


def verdict_table(folder: str | Path) -> str:
    """Write the figures of an evaluation with their verdicts as lines of text, the summary first.

    Raises
    ------
    DataError
        As `read_evaluation`.
    """
    evaluation = read_evaluation(folder)
    figures, unit = evaluation["figures"], str(evaluation.get("unit", "display"))
    verdicts = judge(figures)
    width = max((len(plain_name(figure.name, unit)) for figure in figures), default=0)
    lines = [summary(verdicts)]
    for figure, verdict in zip(figures, verdicts, strict=True):
        error = f" ± {number(figure.error, 2)}" if figure.error is not None else ""
        floor = f"floor {number(figure.floor)}" if figure.floor is not None else figure.note
        value = number(figure.value) if figure.status == "ok" else figure.status
        name = plain_name(figure.name, unit)
        lines.append(f"{SIGNS[verdict]} {verdict:<4}  {name:<{width}}  {value + error:<18}  {floor}".rstrip())
    return "\n".join(lines)
