"""How the C library keeps freed memory, which on a CPU is worth a sixth of the time of convolutional training."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_KEPT = 1 << 30  # [byte]


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep up to a gigabyte of freed memory instead of giving it back to the system.

    A training step frees and asks again for the same large blocks; given back each time, every page of them is cleared
    and mapped anew. It holds for the rest of the process.

    Returns
    -------
    bool
        Whether the allocator took it; False where it is not glibc's.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or no Linux
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
