r"""Vector quantization with a codebook that follows the latents (van den Oord et al. 2017, arXiv:1711.00937).

A latent vector z is decoded as its nearest code :math:`e_k`; the gradient passes unchanged. The codes are exponential
moving averages of the vectors that chose them (Appendix A.1 there),

.. math:: N_k \leftarrow \gamma N_k + (1 - \gamma)\, n_k, \quad m_k \leftarrow \gamma m_k + (1 - \gamma) \sum z, \quad
          e_k = m_k / N_k,

and the loss keeps the encoder near them with :math:`\beta\, |z - \mathrm{sg}[e_k]|^2`. A code that is hardly ever
chosen is moved to a vector of the batch (Dhariwal et al. 2020, arXiv:2005.00341, Section 3.1): at the first step all.

The sums are exact, in whole numbers, so that no order of a GPU's threads changes them; the draws are counter-based; and
the new codes are taken over by `update`, which the training calls after every step with a 0 for one that it skipped: a
resumed training has the same bits, and a skipped step leaves no trace.

The posterior holds z as it was before quantization: a denoiser learns a density rather than a set of points, and the
decoder quantizes what it draws (Rombach et al. 2022, arXiv:2112.10752, Section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.autoencoder.convolutional import ConvolutionalAutoencoder
from galdiff.autoencoder.decoded import DecodedSky
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.nn.precision import full_precision
from galdiff.randomness import uniform

__all__ = ["VQAutoencoder", "VectorQuantizer"]

_DEAD = 0.1  # of the count that every code would have if all had the same
_AT_ONCE = 16_384  # vectors compared with the codes at a time
_UNIT = 2.0**-32  # of the whole numbers that are summed


class VectorQuantizer(nn.Module):
    """A codebook.

    Parameters
    ----------
    channels : int
        Channels of a vector.
    codes : int
        Size of the codebook.
    decay : float
        Of the moving averages, a step.
    """

    codes: Tensor
    count: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, channels: int, codes: int, *, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("count", torch.zeros(codes))
        self.register_buffer("total", torch.zeros(codes, channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def index(self, z: Tensor) -> Tensor:
        """Return the nearest code of every latent vector: ``(n, channel, y, x)`` to int64 ``(n, y, x)``."""
        with full_precision(z.device):
            vectors = z.detach().float().movedim(1, -1)
            square = self.codes.square().sum(dim=1)
            parts = vectors.reshape(-1, vectors.shape[-1]).split(_AT_ONCE)
            nearest = [torch.addmm(square, part, self.codes.T, alpha=-2).argmin(dim=1) for part in parts]
            return torch.cat(nearest).reshape(vectors.shape[:-1])

    def values(self, index: Tensor) -> Tensor:
        """Return the latents ``(n, channel, y, x)`` of codes."""
        return self.codes[index].movedim(-1, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Quantize; the gradient is the identity's."""
        return z + (self.values(self.index(z)) - z).detach()

    @torch.no_grad()
    def observe(self, z: Tensor, index: Tensor) -> None:
        """Remember what a training batch says of the codes until `update`."""
        with full_precision(z.device):
            vectors = z.float().movedim(1, -1).reshape(-1, z.shape[1])
            whole, index = (vectors.double() / _UNIT).round().long(), index.flatten()
            count = torch.zeros_like(self.count, dtype=torch.int64).index_add_(0, index, torch.ones_like(index))
            total = torch.zeros_like(self.total, dtype=torch.int64).index_add_(0, index, whole)
            draw = self.steps * len(self.codes) + torch.arange(len(self.codes), device=z.device)
            fresh = (uniform(0, "codes", draw) * len(vectors)).long().clamp_max(len(vectors) - 1)
            self._seen = count.float(), (total.double() * _UNIT).float(), vectors[fresh]

    @torch.no_grad()
    def update(self, finite: Tensor) -> None:
        """Take over what was observed, unless ``finite`` is 0."""
        if self._seen is None:
            return
        n, total, fresh = self._seen
        self._seen = None
        count, total = torch.lerp(n, self.count, self.decay), torch.lerp(total, self.total, self.decay)
        usual = n.sum() / len(n)
        dead = count < _DEAD * usual
        count = torch.where(dead, 2 * _DEAD * usual, count)
        total = torch.where(dead[:, None], count[:, None] * fresh, total)
        new = {"codes": total / count[:, None], "count": count, "total": total, "steps": self.steps + 1}
        for name, value in new.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.where(finite > 0, value, buffer))

    def figures(self) -> dict[str, Tensor]:
        """Return the perplexity of the codes and the share of them in use, of the moving counts."""
        share = self.count / self.count.sum().clamp_min(1e-9)
        perplexity = torch.exp(-torch.special.xlogy(share, share).sum())
        return {"perplexity": perplexity, "codes_used": (share > 2 * _DEAD / len(share)).float().mean()}


class VQAutoencoder(ConvolutionalAutoencoder):
    """Autoencoder with vector quantization.

    Parameters
    ----------
    bands : int
        Bands of the image.
    channels : int
        Latent channels.
    codes : int
        Size of the codebook.
    commitment : float
        Weight of the term that keeps latents near their codes.
    **network
        ``factor``, ``width``, ``blocks`` and options of `ConvolutionalAutoencoder`.
    """

    KIND: ClassVar[str] = "vq"
    MODULES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encoder": ("encoder",),
        "decoder": ("decoder", "grain", "quantizer"),
    }

    def __init__(
        self, bands: int, *, channels: int = 8, codes: int = 1024, commitment: float = 0.25, **network: Any
    ) -> None:
        spec = {"channels": channels, "codes": codes, "commitment": commitment}
        super().__init__(bands, channels, channels, spec, **network)
        self.commitment = commitment
        self.quantizer = VectorQuantizer(channels, codes)

    def encode(self, x: Tensor) -> LatentPosterior:
        """Encode stretched images ``(n, band, y, x)`` whose sides the factor divides."""
        return LatentPosterior.certain(self.encoder(x).float())

    def decode(self, z: Tensor) -> DecodedSky:
        """Quantize latents ``(n, channel, y, x)`` and decode them."""
        return super().decode(self.quantizer(z))

    def regularizer(self, posterior: LatentPosterior) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the commitment term; log it, the perplexity of the codes and the share of them in use."""
        index = self.quantizer.index(posterior.mean)
        commitment = functional.mse_loss(posterior.mean, self.quantizer.values(index).detach())
        self.quantizer.observe(posterior.mean, index)
        return self.commitment * commitment, {"commitment": commitment, **self.quantizer.figures()}

    @torch.no_grad()
    def after_step(self, finite: Tensor) -> None:
        """Let the codes follow the latents of the step, unless it was skipped."""
        self.quantizer.update(finite)
