r"""What the output of a network means: predictions.

A *prediction* says what the network is trained to give for :math:`x_t = \alpha x + \sigma \epsilon`, and how the
posterior mean of the data follows from it. With data of standard deviation :math:`s`:

``flow``
    The velocity :math:`\epsilon - x` of a straight line; :math:`D = x_t - \sigma F` (Liu et al. 2022,
    arXiv:2209.03003).
``v``
    :math:`\alpha \epsilon - \sigma x`; :math:`D = (\alpha x_t - \sigma F) / (\alpha^2 + \sigma^2)` (Salimans & Ho 2022,
    arXiv:2202.00512, Appendix D).
``eps``
    The noise; :math:`D = (x_t - \sigma F) / \alpha` (Ho et al. 2020, arXiv:2006.11239).
``x0``
    The data; :math:`D = F`.
``edm``
    :math:`D = c_\mathrm{skip} x_t / \alpha + c_\mathrm{out} F` with
    :math:`c_\mathrm{skip} = s^2 / (\varsigma^2 + s^2)`,
    :math:`c_\mathrm{out} = \varsigma s / \sqrt{\varsigma^2 + s^2}`,
    :math:`\varsigma = \sigma / \alpha` (Karras et al. 2022, arXiv:2206.00364, Table 1).

For every one the error of the output is the error of the posterior mean times a *gain* that depends on time alone,
which is how one weighting serves them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from galdiff.diffusion.schedule import Schedule
from galdiff.errors import GaldiffError

__all__ = ["PREDICTIONS", "Prediction", "build_prediction"]


class Prediction(ABC):
    """The meaning of a network's output; alpha and sigma broadcast with the data.

    Parameters
    ----------
    schedule : Schedule
        The noise schedule.
    data_std : float
        Standard deviation of the data, s.

    Raises
    ------
    GaldiffError
        Where the schedule makes no sense of the prediction, with the reason.
    """

    name: str

    def __init__(self, schedule: Schedule, data_std: float) -> None:
        self.s = data_std
        reason = self._refusal(schedule)
        if reason is not None:
            kind = schedule.to_dict()["kind"]
            raise GaldiffError(f"prediction '{self.name}' and schedule '{kind}' do not fit: {reason}")

    def _refusal(self, schedule: Schedule) -> str | None:
        """Say why the schedule makes no sense."""
        return None

    @abstractmethod
    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the posterior mean of the data."""

    @abstractmethod
    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what the output should be."""

    @abstractmethod
    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the error of the output over that of the posterior mean."""


class _Flow(Prediction):
    name = "flow"

    def _refusal(self, schedule: Schedule) -> str | None:
        return None if schedule.family == "straight" else "epsilon - x is the slope of straight lines alone. Use 'v'"

    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x_t - sigma * output

    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return epsilon - x

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return 1 / sigma


class _Velocity(Prediction):
    name = "v"

    def _refusal(self, schedule: Schedule) -> str | None:
        grows = schedule.family == "exploding"
        return "its target would grow with the noise. Use 'edm', which has unit variance" if grows else None

    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)

    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha * epsilon - sigma * x

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (alpha**2 + sigma**2) / sigma


class _Noise(Prediction):
    name = "eps"

    def _refusal(self, schedule: Schedule) -> str | None:
        return "where no signal is left the noise says nothing of the data. Use 'v'" if schedule.ends_empty else None

    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (x_t - sigma * output) / alpha

    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return epsilon

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha / sigma


class _Data(Prediction):
    name = "x0"

    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return output

    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return x

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return alpha.new_ones(()).expand_as(alpha)


class _Preconditioned(Prediction):
    name = "edm"

    # Written without dividing by alpha, which is zero at the noisy end of some schedules.
    def _norm(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma**2 + alpha**2 * self.s**2

    def data(self, x_t: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        norm = self._norm(alpha, sigma)
        return alpha * self.s**2 / norm * x_t + sigma * self.s * norm.rsqrt() * output

    def target(self, x: Tensor, epsilon: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        # x - c_skip x_t = (sigma^2 x - alpha s^2 sigma epsilon) / norm, divided by c_out: finite where sigma is zero.
        return (sigma * x - alpha * self.s**2 * epsilon) / (self.s * self._norm(alpha, sigma).sqrt())

    def gain(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._norm(alpha, sigma).sqrt() / (sigma * self.s)


_KINDS: dict[str, type[Prediction]] = {c.name: c for c in (_Flow, _Velocity, _Noise, _Data, _Preconditioned)}
PREDICTIONS = tuple(_KINDS)
"""What a backbone's output may mean."""


def build_prediction(name: str, schedule: Schedule, data_std: float = 1.0) -> Prediction:
    """Build a prediction by name.

    Raises
    ------
    GaldiffError
        For an unknown name, or one that the schedule makes no sense of.
    """
    if name not in _KINDS:
        raise GaldiffError(f"unknown prediction '{name}'", remedy=f"Known: {', '.join(PREDICTIONS)}")
    return _KINDS[name](schedule, data_std)
