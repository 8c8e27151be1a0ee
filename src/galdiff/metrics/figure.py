"""What is reported of a run: a number with its error, its floor and its protocol."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """A number with what it takes to read it.

    Attributes
    ----------
    name : str
        What was measured.
    value, error, floor : float or None
        Generated against held-out real images, its bootstrap standard deviation, and the same for real images of the
        training split against held-out ones at the same count. None where there are too few images.
    n : int
        Images on each side.
    protocol : str
        Exact definition, by name.
    status : {"ok", "too few"}
    note : str
        What a reader should know.
    """

    name: str
    value: float | None
    error: float | None
    floor: float | None
    n: int
    protocol: str
    status: str = "ok"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON of ``evaluation.json``."""
        return asdict(self)
