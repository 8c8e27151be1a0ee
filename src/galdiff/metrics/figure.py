r"""Figures: numbers with what it takes to read them, and the verdict on each.

A figure measures how far generated images are from real ones; its floor is how far real images are from each other,
with mean :math:`d_0` and spread :math:`\sigma_0` over splits of the real ones. A value at the distance :math:`d` from
its ideal, with bootstrap error :math:`\sigma`, is a pass where it is one that real images might have,

.. math:: d \le d_0 + z \sqrt{\min(\sigma, \sigma_0)^2 + \sigma_0^2},

(the smaller error, since that of a distance grows with it), and a fail where even its error bars do not reach three
floors,

.. math:: d > 3 d_0 + z \sqrt{\sigma^2 + 9 \sigma_0^2}.

Between the two somebody should look. Where the ideal is a measurement on real images itself, :math:`d_0` is zero and
both errors count as they are. z is the quantile of :math:`1 - \alpha / m` for m figures (Bonferroni) of Student's t,
with as many degrees of freedom as the errors have draws, less one: real images seldom fail to pass a whole page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import hypot, isfinite
from typing import Any, Literal, Self

from scipy.stats import t as student

__all__ = ["ALPHA", "RULE", "Figure", "Verdict", "judge"]

Verdict = Literal["pass", "look", "fail", "open"]
"""What a figure says of the generated images; "open" where it has no value or error bars, or is of too few images."""

ALPHA = 0.01
"""Nominal chance that real images do not pass a whole page of figures."""
_TOLERATED = 3.0
_NUMBERS = ("value", "error", "floor", "floor_error")
RULE = (
    "pass: no farther from the ideal than real images are from each other, within the error bars; "
    f"look: farther, but not beyond {_TOLERATED:g} times that; fail: beyond, error bars included; "
    "open: no error bars, or a distance that another figure is judged by already. "
    "Error bars are widened for the number of figures, so that real images seldom fail to pass all of them."
)
"""The rule in words."""


@dataclass(frozen=True)
class Figure:
    """A number with what it takes to read it.

    A number that is not finite becomes None, and the note says so: neither JSON nor a verdict has a place for it.

    Attributes
    ----------
    name : str
        What was measured.
    value, error, floor : float or None
        Generated against held-out real images, its bootstrap standard deviation, and the same for real images against
        each other at the same count. None where there are too few images, or the number is undefined.
    n : int
        Images on each side.
    protocol : str
        Exact definition, by name.
    status : {"ok", "too few", "undefined", "infinite"}
        "ok", or why there is no value.
    note : str
        What a reader should know.
    floor_error : float or None
        Standard deviation of the floor, over splits of the real images.
    ideal : float or None
        What the figure would be for a perfect model and infinitely many images; None where it is the floor itself.
    freedom : int
        Degrees of freedom of the errors: draws less one; without any the figure is open.
    judged : bool
        False of what estimates in another way what another figure is judged by: it is open, and counts in no verdict.
    """

    name: str
    value: float | None
    error: float | None
    floor: float | None
    n: int
    protocol: str
    status: str = "ok"
    note: str = ""
    floor_error: float | None = None
    ideal: float | None = 0.0
    freedom: int = 19
    judged: bool = True

    def __post_init__(self) -> None:
        undefined = [key for key in _NUMBERS if not isfinite(getattr(self, key) or 0.0)]
        if not undefined:
            return
        what = "" if "value" in undefined else f"{' and '.join(undefined).replace('_', ' ')} "
        why = f"{what}undefined: these images leave nothing to divide by, or nothing to measure"
        known: dict[str, Any] = dict.fromkeys(undefined)
        known["note"] = "; ".join(filter(None, (why, self.note)))
        known["status"] = self.status if what else "undefined"
        for key, value in known.items():
            object.__setattr__(self, key, value)

    @classmethod
    def too_few(
        cls,
        name: str,
        n: int,
        protocol: str,
        note: str = "",
        *,
        needed: int | None = None,
        ideal: float | None = None,
    ) -> Self:
        """Return what stands in place of a figure of too few images; the note begins with how many are needed."""
        told = "" if needed is None else f"{n} images, {needed} needed"
        return cls(name, None, None, None, n, protocol, "too few", ": ".join(filter(None, (told, note))), ideal=ideal)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Read a figure of ``evaluation.json``; what later versions add is left out."""
        return cls(**{field.name: record[field.name] for field in fields(cls) if field.name in record})

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``evaluation.json``."""
        return asdict(self)

    @property
    def departure(self) -> float | None:
        """Distance of the value from the ideal."""
        ideal = self.floor if self.ideal is None else self.ideal
        return None if self.value is None or ideal is None else abs(self.value - ideal)

    def verdict(self, z: float) -> Verdict:
        """Judge the figure at z standard deviations."""
        if self.departure is None or self.floor is None or self.error is None or self.floor_error is None:
            return "open"
        if not self.judged or self.freedom < 1:  # without freedom: the spread of one draw
            return "open"
        floor = 0.0 if self.ideal is None else abs(self.floor - self.ideal)
        error = self.error if self.ideal is None else min(self.error, self.floor_error)
        if self.departure <= floor + z * hypot(error, self.floor_error):
            return "pass"
        beyond = self.departure > _TOLERATED * floor + z * hypot(self.error, _TOLERATED * self.floor_error)
        return "fail" if beyond else "look"


def judge(figures: Sequence[Figure], *, alpha: float = ALPHA) -> list[Verdict]:
    """Return the verdict on every figure of a page.

    Parameters
    ----------
    figures : sequence of Figure
        All that are looked at together: the more there are, the farther one has to stand out.
    alpha : float
        Nominal chance that real images do not pass all of them.
    """
    judged = sum(figure.verdict(0.0) != "open" for figure in figures)
    return [figure.verdict(float(student.isf(alpha / max(judged, 1), max(figure.freedom, 1)))) for figure in figures]
