"""The clock of the ratios."""

from __future__ import annotations

import time
from collections.abc import Callable


def best(work: Callable[[], object], *, rounds: int = 5, calls: int = 1) -> float:
    """Seconds of a call, the best of some rounds: what disturbs a measurement only ever slows it."""
    work()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - begun) / calls)
    return min(times)
