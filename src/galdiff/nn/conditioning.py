r"""Embedding of conditions with masks.

Every field becomes features that are zero where the field is masked, with a flag that says so; a network mixes them as
its other layers are, most by a two-layer perceptron. Votes enter by the mean and the concentration of their Dirichlet
posterior,

.. math:: \bar p_a = \frac{\alpha_0 + n_a}{\sum_b \alpha_0 + n_b}, \qquad \log\Bigl(1 + \sum_b n_b\Bigr),

question by question, so that an unreached question, few votes and many votes are three different inputs. Numbers enter
by waves of doubling frequency; angles by waves that have the angle's period, so that 179 and 1 degrees are neighbors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Votes

__all__ = ["ConditionEmbedding", "ConditionFeatures"]

_HARMONICS = 8
_ANGLE_HARMONICS = 4


class ConditionFeatures(nn.Module):
    """Map a batch of conditions to masked features.

    Parameters
    ----------
    schema : ConditionSchema
        What the conditions are.

    Attributes
    ----------
    count : int
        Number of features; zero where there is nothing to condition on.
    """

    def __init__(self, schema: ConditionSchema) -> None:
        super().__init__()
        self.schema, self.count = schema, 0
        for field in schema.fields:
            if isinstance(field, Class):
                self.count += len(field.classes)
            elif isinstance(field, Votes):
                self.count += len(field.tree.answers) + 2 * len(field.tree.questions)
            else:
                self.count += 2 * _ANGLE_HARMONICS + 1 if field.angle else 2 * _HARMONICS + 2

    def forward(self, conditions: Conditions | None, n: int, device: torch.device) -> Tensor:
        """Return features, float32 ``(n, count)``; no conditions at all are all masked."""
        if conditions is None:
            return torch.zeros(n, self.count, device=device)
        parts: list[Tensor] = []
        for field in self.schema.fields:
            value, mask = conditions.values[field.name], conditions.masks[field.name]
            if isinstance(field, Class):
                # Scaled so that a one-hot row has unit root mean square, like the other features.
                one_hot = functional.one_hot(value, len(field.classes)).float()
                parts.append(one_hot * mask[:, None] * math.sqrt(len(field.classes)))
            elif isinstance(field, Votes):
                for q in range(len(field.tree.questions)):
                    votes = value[:, field.tree.answer_slice(q)]
                    posterior = votes + field.prior
                    mean = posterior / posterior.sum(1, keepdim=True) - 1 / votes.shape[1]
                    count = torch.log1p(votes.sum(1, keepdim=True)) / 3
                    known = mask[:, q : q + 1].float()
                    parts.append(torch.cat([3 * mean, count, torch.ones_like(count)], dim=1) * known)
            elif field.angle:
                parts.append(_waves(value[:, None] * (math.pi / 90), _ANGLE_HARMONICS) * mask[:, None])
            else:
                x = (value[:, None] - field.mean) / field.std
                parts.append(torch.cat([x, _waves(x * (math.pi / 8), _HARMONICS)], dim=1) * mask[:, None])
        return torch.cat(parts, dim=1)


class ConditionEmbedding(nn.Module):
    """Map a batch of conditions to vectors.

    Parameters
    ----------
    schema : ConditionSchema
        What the conditions are.
    width : int
        Length of the vectors.
    """

    def __init__(self, schema: ConditionSchema, width: int) -> None:
        super().__init__()
        self.features, self.width = ConditionFeatures(schema), width
        inputs = self.features.count
        self.mix = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width)) if inputs else None

    def forward(self, conditions: Conditions | None, n: int, device: torch.device) -> Tensor:
        """Return vectors ``(n, width)``; no conditions at all are all masked."""
        if self.mix is None:
            return torch.zeros(n, self.width, device=device)
        return self.mix(self.features(conditions, n, device))


def _waves(x: Tensor, harmonics: int) -> Tensor:
    """Return sines and cosines of x times powers of two, and a one: ``(n, 2 * harmonics + 1)``."""
    phase = x * 2.0 ** torch.arange(harmonics, device=x.device)
    return torch.cat([phase.sin(), phase.cos(), torch.ones_like(x)], dim=1)
