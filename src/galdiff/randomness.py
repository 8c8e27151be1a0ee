r"""Counter-based random numbers: every number is a function of (seed, stream, index), the same on any device.

Philox-4x32-10 (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*) maps a 128-bit counter and a 64-bit
key to four 32-bit words. Here the key is made of the seed and of the *stream* (what the numbers are for), and the
counter of a global sample index and a block number. There is no state: a resumed run, another batch size or another
number of processes sees the same numbers, and sample 17 has the same noise in any batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draws", "choose", "integers", "normal", "permutation", "philox", "uniform"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_AHEAD = 2**22  # numbers that are drawn ahead at once, of which the words take ten times the memory


def philox(counter: Sequence[Tensor | int], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply ten rounds of Philox-4x32.

    Parameters
    ----------
    counter : sequence of four
        32-bit words, as int64 tensors that broadcast or as numbers.
    key : pair of int
        32-bit words.

    Returns
    -------
    tuple of four Tensor
        32-bit words in int64.
    """
    shape = torch.broadcast_shapes(*(c.shape for c in counter if isinstance(c, Tensor)))
    device = next((c.device for c in counter if isinstance(c, Tensor)), None)
    # Numbers are filled in on the device: a copy from the host would wait for it.
    c0, c1, c2, c3 = (
        (c if isinstance(c, Tensor) else torch.full((), c, dtype=torch.int64, device=device)).expand(shape)
        for c in counter
    )
    k0, k1 = key
    for _ in range(10):
        # Products of unsigned words wrap in int64, but their low and high words are right.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (
            (p1 >> 32).bitwise_and_(_WORD).bitwise_xor_(c1).bitwise_xor_(k0),
            (p0 >> 32).bitwise_and_(_WORD).bitwise_xor_(c3).bitwise_xor_(k1),
        )
        c1, c3 = p1.bitwise_and_(_WORD), p0.bitwise_and_(_WORD)
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _key(seed: int, stream: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"{int(seed)}/{stream}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _words(seed: int, stream: str, index: Tensor, count: int, device: torch.device | str | None) -> Tensor:
    """Random 32-bit words ``(len(index), ≥ count)``; the first k of a row do not depend on ``count``."""
    index = torch.as_tensor(index, dtype=torch.int64, device=device).reshape(-1, 1)
    block = torch.arange(-(-count // 4), device=index.device).reshape(1, -1)
    words = philox((index & _WORD, (index >> 32) & _WORD, block, 0), _key(seed, stream))
    return torch.stack(words, dim=-1).flatten(1)


def _unit(words: Tensor) -> Tensor:
    """Map words to float32 in the open interval (0, 1): 23 bits and a half."""
    return (words >> 9).float().add_(0.5).mul_(2.0**-23)


def uniform(
    seed: int, stream: str, index: Tensor, shape: Sequence[int] = (), device: torch.device | str | None = None
) -> Tensor:
    """Draw uniform numbers in the open interval (0, 1).

    Parameters
    ----------
    seed : int
        Seed of the run.
    stream : str
        What the numbers are for.
    index : Tensor
        Global sample indices, int64 ``(n,)``; row i depends on (seed, stream, index[i]) alone.
    shape : sequence of int
        Shape of a row.
    device : optional
        Where; by default the index's device.

    Returns
    -------
    Tensor
        float32 ``(n, *shape)``.
    """
    count = math.prod(shape)
    return _unit(_words(seed, stream, index, count, device)[:, :count]).reshape(-1, *shape)


def normal(
    seed: int, stream: str, index: Tensor, shape: Sequence[int], device: torch.device | str | None = None
) -> Tensor:
    """Draw unit normal numbers (Box & Muller 1958); arguments as in `uniform`."""
    count = math.prod(shape)
    words = _words(seed, stream, index, count + count % 2, device)
    u = _unit(words)
    radius = u[:, 0::2].log().mul_(-2.0).sqrt_()
    angle = u[:, 1::2] * (2 * math.pi)
    numbers = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)
    return numbers[:, :count].reshape(-1, *shape)


def integers(
    seed: int,
    stream: str,
    index: Tensor,
    high: int,
    shape: Sequence[int] = (),
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw integers from 0 to ``high - 1``, int64 ``(n, *shape)``; ``high`` is at most 65,536.

    A word is scaled, not reduced modulo ``high``: the bias is below ``high`` / 2^32.
    """
    if not 0 < high <= 65_536:
        raise ValueError(f"high {high} is not within 1…65,536")
    count = math.prod(shape)
    words = _words(seed, stream, index, count, device)[:, :count]
    return ((words * high) >> 32).reshape(-1, *shape)


class Draws:
    """Random numbers of consecutive samples, drawn for many samples at a time.

    The numbers are those of `normal`, `uniform` and `integers`, whatever was drawn before; drawing a step's few
    thousand of them alone would cost their overhead many times over.

    Parameters
    ----------
    seed : int
        Seed of the run.
    positions : range
        Global sample indices, of step one.
    device : optional
        Where.
    ahead : int
        Samples to draw for at once, at least: by default sixteen batches of 32, or one large batch; fewer where a
        sample's numbers are many, which pay for their own overhead.
    """

    def __init__(
        self, seed: int, positions: range, device: torch.device | str | None = None, *, ahead: int = 512
    ) -> None:
        self.seed, self.positions, self.device, self.ahead = seed, positions, device, ahead
        self._drawn: dict[tuple[Any, ...], tuple[range, Tensor]] = {}

    def at(self, positions: range) -> Draws:
        """Return the draws of other samples; what was drawn ahead is shared."""
        other = Draws(self.seed, positions, self.device, ahead=self.ahead)
        other._drawn = self._drawn
        return other

    def normal(self, stream: str, shape: Sequence[int] = ()) -> Tensor:
        """Draw unit normal numbers ``(len(positions), *shape)``."""
        return self._take(normal, stream, tuple(shape))

    def uniform(self, stream: str, shape: Sequence[int] = ()) -> Tensor:
        """Draw uniform numbers in (0, 1), ``(len(positions), *shape)``."""
        return self._take(uniform, stream, tuple(shape))

    def integers(self, stream: str, high: int) -> Tensor:
        """Draw integers from 0 to ``high - 1``, ``(len(positions),)``."""
        return self._take(integers, stream, high)

    def _take(self, draw: Callable[..., Tensor], stream: str, shape: tuple[int, ...] | int) -> Tensor:
        wanted = self.positions
        block, numbers = self._drawn.get((draw, stream, shape), (range(0), None))
        if numbers is None or wanted.start < block.start or wanted.stop > block.stop:
            row = math.prod(shape) if isinstance(shape, tuple) else 1
            ahead = min(self.ahead, _AHEAD // max(1, row))
            block = range(wanted.start, max(wanted.stop, wanted.start + ahead))
            numbers = draw(self.seed, stream, torch.arange(block.start, block.stop, device=self.device), shape)
            self._drawn[draw, stream, shape] = block, numbers
        return numbers[wanted.start - block.start : wanted.stop - block.start]


def permutation(seed: int, epoch: int, n: int, *, part: int | None = None) -> np.ndarray:
    """Return the order of ``n`` rows in an epoch, or in a part of it, int64; a function of the arguments alone."""
    key = _key(seed, f"permutation/{int(epoch)}" if part is None else f"permutation/{int(epoch)}/{int(part)}")
    return np.random.Generator(np.random.Philox(key=key[0] | key[1] << 32)).permutation(n)


def choose(rows: np.ndarray | int, most: int) -> np.ndarray:
    """Return at most ``most`` of the rows (or of so many), always the same ones, in random order.

    The first rows are no sample of a store: files are often in the order of their classes.
    """
    rows = np.arange(rows) if isinstance(rows, int) else rows
    return rows[permutation(0, 0, len(rows))[:most]]
