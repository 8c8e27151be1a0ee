"""The clocks of ratios and shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch


def best(
    work: Callable[[], object], *, rounds: int = 5, calls: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of a call, the best of some rounds: what disturbs a measurement only ever slows it."""
    work()
    times = []
    for _ in range(rounds):
        begun = clock()
        for _ in range(calls):
            work()
        times.append((clock() - begun) / calls)
    return min(times)


def processor_time(work: Callable[[], object], *, rounds: int) -> float:
    """Seconds of one thread's processor time, which other work on the machine disturbs least.

    Of several threads it says nothing: each spins while it waits for the others, and that counts.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return best(work, rounds=rounds, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seconds_in(*functions: tuple[Any, str]) -> Iterator[list[float]]:
    """Count the seconds spent in functions, each named by its class or module and its name there."""
    spent = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.perf_counter() - begun

        return call

    with ExitStack() as stack:
        for owner, name in functions:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        yield spent
