r"""Guidance: denoisers that wrap denoisers.

Every one extrapolates from a worse estimate of the clean data through a better one, by a weight w that is 1 for no
guidance. Outside of an *interval* of times the better estimate is used alone (Kynkäänniemi et al. 2024,
arXiv:2404.07724). With *rescaling* the guided estimate gets back a share of the spread that it had (Lin et al. 2023,
arXiv:2305.08891, Equations 15 and 16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from galdiff.diffusion.denoiser import Denoiser
from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["Autoguidance", "ClassifierFree", "FieldGuidance", "Floor", "Guidance"]

Level = TypeVar("Level", bound=float | Tensor)

_FLAT = 1e-12  # added to spreads, whose ratio is one where both estimates are constant


class _Wrapper(nn.Module):
    """A denoiser around another one, of the same schedule."""

    def __init__(self, denoiser: Any) -> None:
        super().__init__()
        self.denoiser = denoiser

    @property
    def schedule(self) -> Schedule:
        """The denoiser's schedule."""
        return self.denoiser.schedule


class Guidance(_Wrapper):
    """What the kinds of guidance share.

    Parameters
    ----------
    denoiser : Denoiser
        The better estimate.
    interval : pair of float, optional
        Times outside of which there is no guidance.
    rescale : float
        Share, in [0, 1], of the spread over a sample that is given back.
    """

    def __init__(
        self, denoiser: Denoiser, *, interval: tuple[float, float] | None = None, rescale: float = 0.0
    ) -> None:
        super().__init__(denoiser)
        if not 0 <= rescale <= 1:
            raise GaldiffError(f"a rescaling of {rescale} is not in [0, 1]")
        if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
            remedy = "Give two times within [0, 1], the smaller first"
            raise GaldiffError(f"guidance within {list(interval)} is none", remedy=remedy)
        self.interval, self.rescale = interval, rescale

    def at(self, t: float) -> Any:
        """Return what is to be asked at a time: outside of the interval the better estimate alone, at its own cost."""
        return self if self.interval is None or self.interval[0] <= t <= self.interval[1] else self.denoiser

    def _finish(self, guided: Tensor, plain: Tensor, t: Tensor) -> Tensor:
        """Rescale, and keep the plain estimate outside of the interval."""
        if self.rescale:
            axes = tuple(range(1, plain.ndim))
            before, after = (x.std(axes, keepdim=True) + _FLAT for x in (plain, guided))
            spread = before / after
            guided = guided * (1 + self.rescale * (spread - 1))
        if self.interval is None:
            return guided
        low, high = self.interval
        inside = ((t >= low) & (t <= high)).view(-1, *[1] * (plain.ndim - 1))
        return torch.where(inside, guided, plain)


class ClassifierFree(Guidance):
    r"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) on all channels, in one batch.

    .. math:: D_w = D_\varnothing + w\, (D_c - D_\varnothing)

    Weight 1 is the conditional denoiser and 0, within the interval, the unconditional one; each at its plain cost where
    it is alone.

    Parameters
    ----------
    denoiser : Denoiser
        Trained with and without conditions.
    weight : float
        w.
    interval, rescale
        As in `Guidance`.
    """

    def __init__(self, denoiser: Denoiser, weight: float, **options: Any) -> None:
        super().__init__(denoiser, **options)
        self.weight = _finite(weight)

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the guided estimate of the clean data; arguments as in `Denoiser.forward`."""
        _need(condition)
        if self.weight == 1:
            return self.denoiser(x_t, t, condition)
        if self.weight == 0 and self.interval is None and not self.rescale:
            return self.denoiser(x_t, t, condition.null())
        t, asked = t.expand(len(x_t)), condition.cat(condition.null())
        both = self.denoiser(torch.cat([x_t, x_t]), torch.cat([t, t]), asked)
        conditional, unconditional = both.chunk(2)
        return self._finish(torch.lerp(unconditional, conditional, self.weight), conditional, t)


class FieldGuidance(Guidance):
    r"""Guidance with a weight for each part of the condition, in one batch.

    .. math:: D = D_c + \sum_f (w_f - 1)\, (D_c - D_{c \setminus f})

    where :math:`c \setminus f` is the condition without the part f: what f adds to what the rest says already. With a
    single part this is classifier-free guidance; differences from the unconditional estimate (Liu et al. 2022,
    arXiv:2206.01714, Equation 11) would count twice what two parts have in common.

    Parameters
    ----------
    denoiser : Denoiser
        Trained with any subset of the conditions.
    weights : mapping
        From parts, as the condition's ``without`` knows them, to weights; the others have weight 1.
    interval, rescale
        As in `Guidance`.
    """

    def __init__(self, denoiser: Denoiser, weights: Mapping[Any, float], **options: Any) -> None:
        super().__init__(denoiser, **options)
        self.weights = {part: _finite(w) for part, w in weights.items() if w != 1}

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the guided estimate of the clean data; arguments as in `Denoiser.forward`."""
        _need(condition)
        count, t = 1 + len(self.weights), t.expand(len(x_t))
        asked = condition
        for part in self.weights:
            asked = asked.cat(condition.without(part))
        x_t = x_t.repeat(count, *[1] * (x_t.ndim - 1))
        plain, *without = self.denoiser(x_t, t.repeat(count), asked).chunk(count)
        guided = plain
        for other, weight in zip(without, self.weights.values(), strict=True):
            guided = guided + (weight - 1) * (plain - other)
        return self._finish(guided, plain, t) if without else plain


class Autoguidance(Guidance):
    """Guidance by a weaker version of the same model (Karras et al. 2024, arXiv:2406.02507); needs no condition.

    Parameters
    ----------
    denoiser : Denoiser
        The model.
    weaker : Denoiser
        A smaller or less trained one of the same schedule.
    weight : float
        w.
    interval, rescale
        As in `Guidance`.

    Raises
    ------
    GaldiffError
        Where the two have different schedules.
    """

    def __init__(self, denoiser: Denoiser, weaker: Denoiser, weight: float, **options: Any) -> None:
        super().__init__(denoiser, **options)
        if weaker.schedule.to_dict() != denoiser.schedule.to_dict():
            raise GaldiffError("the weaker model has another schedule: its times mean other noise")
        self.weaker, self.weight = weaker, _finite(weight)

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the guided estimate of the clean data; arguments as in `Denoiser.forward`."""
        plain = self.denoiser(x_t, t, condition)
        if self.weight == 1:
            return plain
        guided = torch.lerp(self.weaker(x_t, t, condition), plain, self.weight)
        return self._finish(guided, plain, t.expand(len(x_t)))


class Floor(_Wrapper):
    """Keep the estimate of the clean data above a physical floor, such as five times the noise below the sky.

    Clipping to [-1, 1] would cut what bright galaxies are made of; no pixel is far below the sky.

    Parameters
    ----------
    denoiser : Denoiser
        Over pixels, with or without guidance.
    low : float or Tensor
        The floor, in what the denoiser sees; a tensor broadcasts with the estimate, such as ``(band, 1, 1)``.
    """

    def __init__(self, denoiser: Any, low: float | Tensor) -> None:
        super().__init__(denoiser)
        self.low = _finite(low)

    def at(self, t: float) -> Any:
        """Return what is to be asked at a time: a floor under what guidance asks then."""
        return Floor(self.denoiser.at(t), self.low) if isinstance(self.denoiser, Guidance) else self

    def forward(self, x_t: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """Return the estimate of the clean data; arguments as in `Denoiser.forward`."""
        return self.denoiser(x_t, t, condition).clamp_min(self.low)


def _finite(level: Level) -> Level:
    if not torch.as_tensor(level).isfinite().all():
        raise GaldiffError(f"{level} is no weight or level", remedy="Give a finite number")
    return level


def _need(condition: Any) -> None:
    if condition is None:
        raise GaldiffError("guidance needs a condition", remedy="Ask for something, or leave guidance out")
