"""How large a backbone is: depth, width, parameters, and floating-point operations, counted without computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from galdiff.nn import build_backbone
from galdiff.schema.conditions import ConditionSchema

__all__ = ["NetworkSize", "network_size"]


@dataclass(frozen=True)
class NetworkSize:
    """The size of a backbone on latents of some shape.

    Attributes
    ----------
    kind : str
        "unet", "edm2" or "dit".
    depth, width : int
        Blocks, and channels of the widest.
    parameters : int
        Numbers that are trained.
    flops : int
        Of one image forward, in matrix products, convolutions and attention; a multiply-add is two. A training step
        takes three times as many.
    """

    kind: str
    depth: int
    width: int
    parameters: int
    flops: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON description."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.kind}, {self.depth} blocks of up to {self.width} channels, "
            f"{self.parameters / 1e6:.2f} M parameters, {_flops(self.flops)} an image forward "
            f"({_flops(3 * self.flops)} in training; 2 a multiply-add)"
        )


def network_size(spec: Mapping[str, Any], schema: ConditionSchema, side: int | Sequence[int]) -> NetworkSize:
    """Measure a backbone by its description; no memory is taken for its weights.

    Parameters
    ----------
    spec : mapping
        What `build_backbone` takes.
    schema : ConditionSchema
        What it is conditioned on.
    side : int or pair of int
        Size of the latents.
    """
    height, width = (side, side) if isinstance(side, int) else side
    with torch.device("meta"):
        network = build_backbone(spec, schema).eval()
        x = torch.empty(1, spec["channels"], height, width)
        level, nothing = torch.empty(1), schema.empty(1).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, level, nothing)
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return NetworkSize(network.spec["kind"], network.depth, network.width, parameters, counter.get_total_flops())


def _flops(n: int) -> str:
    for unit, name in ((1e12, "TFLOP"), (1e9, "GFLOP")):
        if n >= unit:
            return f"{n / unit:.3g} {name}"
    return f"{n / 1e6:.3g} MFLOP"
