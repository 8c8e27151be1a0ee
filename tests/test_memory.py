"""Freed memory that is kept, and given back at the end, as the system counts it."""

import subprocess
import sys

import pytest

from galdiff.memory import freed_memory_kept

RUN = """
import resource, torch
from galdiff.memory import freed_memory_kept
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
def work(blocks=1):
    for _ in range(50):
        held = [torch.empty(2**24, dtype=torch.uint8).fill_(1) for _ in range(blocks)]  # 4,096 pages each
with freed_memory_kept():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    start = resident()
    work(blocks=16)
    kept = resident()
print(kept - start)
print(kept - resident())
"""


@pytest.fixture(scope="module")
def pages():
    with freed_memory_kept() as is_kept:
        if not is_kept:
            pytest.skip("the C library is not glibc")
    out = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in out.split()]


def test_blocks_that_are_asked_for_again_cost_no_page_faults(pages):
    assert pages[0] < 1000  # of 204,800


def test_what_was_kept_is_given_back_at_the_end(pages):
    _, kept, returned = pages
    assert kept > 40_000  # pages: not vacuous
    assert returned > 0.9 * kept
