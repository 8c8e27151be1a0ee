r"""The morphology encoder: a feature space of a run's own, trained on its real training split alone.

Three quarters of the features are even and the others odd under a reflection of the image, and none changes when the
image is turned: with the network g, a projector P of signs and the eight symmetries s of the square,

.. math:: f(x) = \tfrac{1}{8} \sum_s P^{[s \text{ reflects}]} g(s x).

So a spiral and its mirror image differ in the odd features and in nothing else. The objective is VICReg (Bardes, Ponce
& LeCun 2022, arXiv:2105.04906) on two views of an image, each turned, reflected and shifted, and, where a catalog has
conditions, what linear heads on the features say of them: cross-entropy of classes, the Dirichlet-multinomial
likelihood of votes and the squared error of numbers. Views are not blurred, dimmed, recolored or made noisy: those are
defects of generated images, to which a judge must not become blind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.atomic import write_json
from galdiff.errors import CheckpointError, DataError, GaldiffError
from galdiff.judges.body import Body, train
from galdiff.judges.views import SPOILS, grain, views
from galdiff.judges.votes import VoteHead
from galdiff.nn.dihedral import dihedral, is_reflection
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes
from galdiff.weights import load_weights, save_weights

__all__ = ["MorphologyEncoder"]

ODD = 4
"""One feature in so many is odd under reflections."""
UNIT = 3.0
"""How far the strongest spoil moves its feature."""
INVARIANCE, AMOUNT, COVARIANCE = 1.0, 4.0, 0.04
STANDARD = 1000  # images of the training split that standardise the features
_BATCH = 128


class MorphologyEncoder(nn.Module):
    """Features of stretched images, and what they say of the conditions.

    Parameters
    ----------
    bands : int
        Bands of the images.
    schema : ConditionSchema, optional
        Conditions to learn from; angles and what has no field are left out.
    width : int
        Channels of the network's first level.
    features : int
        Number of features, a multiple of four.

    Raises
    ------
    DataError
        For another number of features.
    """

    mean: Tensor
    std: Tensor
    parity: Tensor

    def __init__(
        self, bands: int, schema: ConditionSchema | None = None, *, width: int = 32, features: int = 64
    ) -> None:
        super().__init__()
        if features < ODD or features % ODD:
            raise DataError(f"{features} features cannot be a quarter odd", remedy="Use a multiple of four")
        self.schema = schema or ConditionSchema()
        self.spec: dict[str, Any] = {
            "kind": "morphology encoder",
            "bands": bands,
            "schema": self.schema.to_dict(),
            "width": width,
            "features": features,
        }
        self.body = Body(bands, width=width)
        self.project = nn.Linear(self.body.outputs, features)
        self.fields = [f for f in self.schema.fields if not (isinstance(f, Scalar) and f.angle)]
        self.heads = nn.ModuleList(_head(f, features) for f in self.fields)
        parity = torch.ones(features)
        parity[-(features // ODD) :] = -1
        self.register_buffer("parity", parity, persistent=False)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def forward(self, x: Tensor, element: Tensor) -> Tensor:
        """Return raw features ``(n, features)`` of images turned by ``element``, odd ones with the sign put right."""
        g = self.project(self.body(dihedral(x, element)))
        return torch.where(is_reflection(element)[:, None], g * self.parity, g)

    def fit(
        self,
        images: Any,
        conditions: Conditions | None = None,
        *,
        seed: int = 0,
        seen: int = 8000,
        batch: int = 64,
        learning_rate: float = 2e-3,
    ) -> MorphologyEncoder:
        """Train on real images.

        Parameters
        ----------
        images : array_like
            Stretched images of the training split ``(n, band, y, x)``, square.
        conditions : Conditions, optional
            What is known of them.
        seed : int
            Of weights, order and views.
        seen : int
            Images to train on, each in two views.
        batch, learning_rate
            Of AdamW, with a cosine decay.

        Returns
        -------
        MorphologyEncoder
            Self, in evaluation mode.

        Raises
        ------
        DataError
            For fewer than two images, images that are not square, or conditions of another number of rows.
        """
        x = torch.as_tensor(np.asarray(images))
        if x.ndim != 4 or x.shape[2] != x.shape[3] or len(x) < 2:
            raise DataError(f"images have shape {tuple(x.shape)}, not (two or more, band, side, side)")
        noise = grain(x)
        known = conditions if conditions is not None else self.schema.empty(len(x))
        if self.fields and len(known) != len(x):
            raise DataError(f"{len(x)} images do not go with {len(known)} conditions")

        def loss(rows: Tensor, positions: Tensor) -> Tensor:
            pairs, elements, amounts = views(x[rows].float(), seed=seed, positions=positions, noise=noise)
            both = self(pairs, elements)
            a, b = both.chunk(2)
            clean = (amounts == 0).all(dim=1, keepdim=True)
            value = INVARIANCE * ((b - a) * clean).square().mean()
            spoiled = (b - a)[:, : len(SPOILS)]
            value = value + AMOUNT * (spoiled - UNIT * amounts).square().mean()
            value = value + (_spread(a) + _spread(b)) / 2
            return value + self._supervised(both, known[rows].cat(known[rows]))

        train(self, len(x), loss, seed=seed, seen=seen, batch=batch, learning_rate=learning_rate)
        raw = self._raw(x[:: max(1, len(x) // STANDARD)])
        self.mean.copy_(torch.where(self.parity > 0, raw.mean(dim=0), 0.0))
        self.std.copy_((raw - self.mean).square().mean(dim=0).sqrt().clamp_min(1e-6))
        return self

    def _supervised(self, features: Tensor, known: Conditions) -> Tensor:
        total = features.new_zeros(())
        for f, head in zip(self.fields, self.heads, strict=True):
            value, mask = known.values[f.name], known.masks[f.name]
            if isinstance(head, VoteHead):
                total = total + head.loss(features, value, mask)
                continue
            rows = mask.nonzero().flatten()
            if not len(rows):
                continue
            out = head(features[rows])
            if isinstance(f, Class):
                total = total + functional.cross_entropy(out, value[rows])
            elif isinstance(f, Scalar):
                total = total + functional.mse_loss(out[:, 0], (value[rows] - f.mean) / f.std)
        return total

    @torch.no_grad()
    def _raw(self, images: Any) -> Tensor:
        parts = []
        for part in torch.as_tensor(np.asarray(images)).split(_BATCH):
            x = part.float()
            parts.append(sum(self(x, torch.full((len(x),), s)) for s in range(8)) / 8)
        return torch.cat(parts) if parts else torch.zeros(0, len(self.parity))

    def features(self, images: Any) -> np.ndarray:
        """Return features of stretched images, float64 ``(n, features)``, standardised by the training split."""
        return ((self._raw(images) - self.mean) / self.std).double().numpy()

    def save(self, folder: Path) -> None:
        """Write ``encoder.safetensors`` and, last, ``spec.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / "encoder.safetensors", self.state_dict())
        write_json(folder / "spec.json", self.spec)

    @classmethod
    def load(cls, folder: Path) -> MorphologyEncoder:
        """Read what `save` wrote.

        Raises
        ------
        CheckpointError
            Where a file is missing, damaged or of another network.
        """
        try:
            spec = json.loads((folder / "spec.json").read_text())
            if spec.pop("kind") != "morphology encoder":
                raise ValueError("not a morphology encoder")
            encoder = cls(spec.pop("bands"), ConditionSchema.from_dict(spec.pop("schema")), **spec)
            encoder.load_state_dict(load_weights(folder / "encoder.safetensors")[0])
        except (
            OSError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            GaldiffError,
            safetensors.SafetensorError,
        ) as error:
            raise CheckpointError(f"cannot load the morphology encoder: {error}", where=folder) from error
        return encoder.eval()


def _head(field: Class | Scalar | Votes, features: int) -> nn.Module:
    if isinstance(field, Votes):
        return VoteHead(features, field.tree)
    return nn.Linear(features, len(field.classes) if isinstance(field, Class) else 1)


def _spread(view: Tensor) -> Tensor:
    """Variance and covariance of a view ``(n, d)`` (equations 1 to 4 of the paper, over 25)."""
    centered = view - view.mean(dim=0)
    covariance = centered.T @ centered / max(1, len(view) - 1)
    variance = covariance.diagonal()
    # The features that measure spoils have whatever spread is nature's: the less, the more a spoil stands out.
    value = functional.relu(1 - (variance[len(SPOILS) :] + 1e-4).sqrt()).mean()
    return value + COVARIANCE * (covariance.square().sum() - variance.square().sum()) / view.shape[1]
