r"""The Inception network of 2015 as the Fréchet Inception distance uses it.

Inception v3 (Szegedy et al. 2016, arXiv:1512.00567) as TensorFlow published it on 2015-12-05, which is not the one of
later model zoos: 1008 classes, average pools that leave the padding out, and a maximum pool in the last block. Features
are the 2048 channels after global average pooling (Heusel et al. 2017, arXiv:1706.08500). Modules are called as in the
weights' file of torch-fidelity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from galdiff.atomic import sha256_file
from galdiff.errors import CheckpointError, ResourceError

__all__ = ["SIDE", "URL", "WIDTH", "Inception", "load_inception"]

SIDE = 299
"""Side of its images in pixels."""
WIDTH = 2048
"""Number of features."""
URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
"""Published weights; the name ends with the beginning of their SHA-256."""

Kernel = int | tuple[int, int]
Layer = tuple[int, Kernel]
Step = Layer | tuple[Layer, Layer]
_PAIR: Step = ((384, (1, 3)), (384, (3, 1)))


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: Kernel, *, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class _Mixed(nn.Module):
    """Branches side by side, and one that is pooled.

    Parameters
    ----------
    inputs : int
        Channels.
    branches : mapping of str to sequence
        Convolutions ``(outputs, kernel)`` of each; two of them in one place are a pair, side by side.
    pooled : int
        Channels of the convolution after the pool; 0 has none, and the block halves the side.
    maximum : bool
        Pool by the maximum.
    """

    def __init__(
        self,
        inputs: int,
        branches: Mapping[str, Sequence[Step]],
        *,
        pooled: int,
        maximum: bool = False,
    ) -> None:
        super().__init__()
        self.pooled, self.maximum = pooled, maximum
        self.names: list[list[list[str]]] = []
        for branch, steps in branches.items():
            channels, chain = inputs, []
            for number, step in enumerate(steps, start=1):
                pair = isinstance(step[0], tuple)
                layers: Sequence[Layer] = step if pair else (step,)  # type: ignore[assignment]
                halves = not pooled and number == len(steps)
                name = branch if len(steps) == 1 else f"{branch}_{number}"
                chain.append([name + letter for letter in ("ab" if pair else [""])])
                for layer, (outputs, kernel) in zip(chain[-1], layers, strict=True):
                    made = _Convolution(channels, outputs, kernel, stride=1 + halves, padded=not halves)
                    self.add_module(layer, made)
                channels = sum(outputs for outputs, _ in layers)
            self.names.append(chain)
        if pooled:
            self.branch_pool = _Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain in self.names:
            y = x
            for names in chain:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            parts.append(y)
        if not self.pooled:
            return torch.cat([*parts, functional.max_pool2d(x, 3, 2)], dim=1)
        average = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        pool = functional.max_pool2d(x, 3, 1, 1) if self.maximum else average
        return torch.cat([*parts, self.branch_pool(pool)], dim=1)


def _block_a(inputs: int, pooled: int) -> _Mixed:
    tower = ((64, 1), (96, 3), (96, 3))
    return _Mixed(
        inputs, {"branch1x1": [(64, 1)], "branch5x5": [(48, 1), (64, 5)], "branch3x3dbl": tower}, pooled=pooled
    )


def _block_c(c: int) -> _Mixed:
    row, column = (1, 7), (7, 1)
    short: list[Step] = [(c, 1), (c, row), (192, column)]
    long: list[Step] = [(c, 1), (c, column), (c, row), (c, column), (192, row)]
    return _Mixed(768, {"branch1x1": [(192, 1)], "branch7x7": short, "branch7x7dbl": long}, pooled=192)


def _block_e(inputs: int, *, maximum: bool) -> _Mixed:
    short: list[Step] = [(384, 1), _PAIR]
    long: list[Step] = [(448, 1), (384, 3), _PAIR]
    branches: dict[str, list[Step]] = {"branch1x1": [(320, 1)], "branch3x3": short, "branch3x3dbl": long}
    return _Mixed(inputs, branches, pooled=192, maximum=maximum)


class Inception(nn.Module):
    """Images ``(n, 3, 299, 299)`` in [-1, 1] to features ``(n, 2048)``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2, padded=False)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = _block_a(192, 32)
        self.Mixed_5c = _block_a(256, 64)
        self.Mixed_5d = _block_a(288, 64)
        tower = ((64, 1), (96, 3), (96, 3))
        self.Mixed_6a = _Mixed(288, {"branch3x3": [(384, 3)], "branch3x3dbl": tower}, pooled=0)
        self.Mixed_6b = _block_c(128)
        self.Mixed_6c = _block_c(160)
        self.Mixed_6d = _block_c(160)
        self.Mixed_6e = _block_c(192)
        long = ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))
        self.Mixed_7a = _Mixed(768, {"branch3x3": [(192, 1), (320, 3)], "branch7x7x3": long}, pooled=0)
        self.Mixed_7b = _block_e(1280, maximum=False)
        self.Mixed_7c = _block_e(2048, maximum=True)
        self.fc = nn.Linear(WIDTH, 1008)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return features after global average pooling."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))


def load_inception(weights: str | Path | None = None) -> tuple[Inception, str]:
    """Load the network with its published weights.

    Parameters
    ----------
    weights : path-like, optional
        The published file, or its conversion to safetensors; by default the published file, from torch's cache or
        downloaded into it (95 MB).

    Returns
    -------
    Inception
        In evaluation mode.
    str
        The first eight digits of the file's SHA-256, for the protocol's name.

    Raises
    ------
    CheckpointError
        Where the file is absent, damaged, or of another network.
    ResourceError
        Where the download fails.
    """
    network = Inception()
    if weights is None:
        try:
            # Checks the hash in the file's name; torch-fidelity and torchmetrics keep the same file in the same place.
            state = torch.hub.load_state_dict_from_url(URL, progress=False, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as error:
            remedy = f"Get {URL} on a machine that can, and name the file: inception-2015:tf=FILE"
            raise ResourceError(f"the weights cannot be downloaded: {error}", where=URL, remedy=remedy) from error
        network.load_state_dict(state)
        return network, URL.rpartition("-")[2].removesuffix(".pth")
    path = Path(weights)
    try:
        plain = path.suffix == ".safetensors"
        state = load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except Exception as error:  # a damaged file raises anything at all
        reason = "is missing" if isinstance(error, FileNotFoundError) else str(error).split("\n", 1)[0]
        remedy = f"The published file is {URL}"
        raise CheckpointError(
            f"no weights of the 2015 Inception network: {reason}", where=path, remedy=remedy
        ) from error
    return network, sha256_file(path)[:8]
