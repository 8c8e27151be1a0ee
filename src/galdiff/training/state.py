"""Everything that a checkpoint holds: weights, moments, averages, the position, and what validation found best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from galdiff.training.averaging import build_average

__all__ = ["TrainingState"]


class TrainingState:
    """The state of a training.

    Parameters
    ----------
    model : nn.Module
        What is trained.
    optimizers : sequence of torch.optim.Optimizer
        That together have all its parameters.
    ema : float or mapping
        As in `galdiff.training.train`.

    Attributes
    ----------
    parameters, names : list
        What is trained.
    average : PlainAverage or PowerAverage
        Of the parameters.
    images, seconds : int, float
        The position.
    skipped, skipped_in_a_row : Tensor
        Steps, counted on the device.
    worse_in_a_row : int
        Validations since the best.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], ema: float | Mapping[str, Any]
    ) -> None:
        self.model = model
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._moments = {p: o.state[p] for o in optimizers for group in o.param_groups for p in group["params"]}
        self.average = build_average(ema, self.parameters)
        self.images, self.seconds = 0, 0.0
        self.skipped = torch.zeros((), device=self.parameters[0].device)
        self.skipped_in_a_row = torch.zeros_like(self.skipped)
        self._best: list[Tensor] = []
        self._judged: dict[str, Any] = {"best_loss": None, "best_images": None, "worse_in_a_row": 0}

    @property
    def worse_in_a_row(self) -> int:
        """Validations since the best."""
        return int(self._judged["worse_in_a_row"])

    @torch.no_grad()
    def follow(self, step: int, images: int, finite: Tensor) -> None:
        """Follow a step of so many images; ``finite`` is 0 where it was skipped, a tensor that nobody waits for."""
        # A skipped step is one that changed nothing: its weights are averaged like any others.
        self.average.update(self.parameters, step)
        self.skipped += 1 - finite
        self.skipped_in_a_row.add_(1).mul_(1 - finite)
        self.images += images

    @contextmanager
    def averages_shown(self) -> Iterator[None]:
        """Put the averaged weights into the model, for as long as it lasts, without gradients."""
        own = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average.main)
            self.model.eval()
            yield
            self.model.train()
            torch._foreach_copy_(self.parameters, own)

    def judge(self, loss: float) -> None:
        """Keep the averages if their validation loss is the least so far."""
        if not math.isfinite(loss) or (self._best and loss >= self._judged["best_loss"]):
            self._judged["worse_in_a_row"] += 1
            return
        self._best = [average.clone() for average in self.average.main]
        self._judged = {"best_loss": loss, "best_images": self.images, "worse_in_a_row": 0}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for trace, averages in self.average.traces.items():
            out |= {f"{trace}.{name}": value for name, value in zip(self.names, averages, strict=True)}
        for name, p in zip(self.names, self.parameters, strict=True):
            out |= {f"optimizer.{key}.{name}": value for key, value in self._moments[p].items()}
        out |= {f"best.{name}": average for name, average in zip(self.names, self._best, strict=False)}
        return {**out, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def meta(self) -> dict[str, Any]:
        """Return the JSON of a checkpoint."""
        return {"seconds": self.seconds, "judged": self._judged}

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Go back to a checkpoint."""
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for trace, averages in self.average.traces.items():
            for name, average in zip(self.names, averages, strict=True):
                average.copy_(tensors[f"{trace}.{name}"])
        for name, p, average in zip(self.names, self.parameters, self.average.main, strict=True):
            if f"best.{name}" in tensors:
                self._best.append(torch.empty_like(average).copy_(tensors[f"best.{name}"]))
            has_moments = f"optimizer.step.{name}" in tensors  # not before its part has begun
            for key in ("step", "exp_avg", "exp_avg_sq") if has_moments else ():
                value = tensors[f"optimizer.{key}.{name}"].to(p.device)
                if key != "step":
                    value = value.contiguous(memory_format=_format(p))
                self._moments[p][key] = value
        self._judged = dict(meta.get("judged", self._judged))
        self.skipped.copy_(tensors["skipped"])
        self.skipped_in_a_row.copy_(tensors["skipped_in_a_row"])
        self.images, self.seconds = meta["images"], meta["seconds"]

    def averaged(self) -> dict[str, Tensor]:
        """Return a state dict of the model with the averaged weights."""
        return self._with(self.average.main)

    def best(self) -> tuple[dict[str, Tensor] | None, int | None]:
        """Return the averaged weights of the least validation loss, and their position."""
        return (self._with(self._best) if self._best else None), self._judged["best_images"]

    def _with(self, averages: Sequence[Tensor]) -> dict[str, Tensor]:
        averaged = dict(zip(self.names, averages, strict=True))
        return {k: averaged.get(k, v).detach().clone() for k, v in self.model.state_dict().items()}


def _format(p: Tensor) -> torch.memory_format:
    channels_last = p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format
