"""Freed memory that is kept, seen from the system's count of page faults."""

import subprocess
import sys

import pytest

from galdiff.memory import keep_freed_memory

FAULTS = """
import resource, sys
import torch
from galdiff.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    for _ in range(50):
        torch.empty(2**24, dtype=torch.uint8).fill_(1)  # 4,096 pages
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_blocks_that_are_asked_for_again_cost_no_page_faults():
    run = [sys.executable, "-c", FAULTS]
    kept = int(subprocess.run([*run, "kept"], capture_output=True, text=True, check=True).stdout)
    assert kept < 1000  # of 204,800
