"""Diffusion transformer (Peebles & Xie 2023, arXiv:2212.09748) with the refinements that pay at small compute.

adaLN-zero modulation, RMS normalization (Zhang & Sennrich 2019), SwiGLU (Shazeer 2020), two-dimensional rotary
positions (Su et al. 2021) so that other latent sizes than the trained one work, and normalized queries and keys
(Dehghani et al. 2023). Rotary positions enter by their differences alone: where the count begins does not matter.

By choice, long skips from the first half of the blocks to the second (Bao et al. 2023, arXiv:2209.12152).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.conditioning import ConditionEmbedding
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["DiT"]


def _rotary(h: int, w: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, ``(h w, head_width / 2)``: half for the rows, half for the columns."""
    n = head_width // 4
    frequencies = math.pi / 2 * 100.0 ** (-torch.arange(n, device=device) / max(1, n))
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    angle = torch.cat([y.reshape(-1, 1) * frequencies, x.reshape(-1, 1) * frequencies], dim=1)
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def _merge(width: int) -> nn.Linear:
    """Take a skip in; at first it is left out, so that training begins as without skips."""
    layer = nn.Linear(2 * width, width)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(width, 2 * width))
        nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm_q, self.norm_k = nn.RMSNorm(width // heads, eps=1e-6), nn.RMSNorm(width // heads, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, embedding: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, tokens, width = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(embedding)[:, None].chunk(6, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # In float32, as the weights of the norms are, also under autocast.
        q, k = _rotate(self.norm_q(q.float()), cos, sin), _rotate(self.norm_k(k.float()), cos, sin)
        y = functional.scaled_dot_product_attention(q, k, v.to(q.dtype)).transpose(1, 2).reshape(n, tokens, width)
        x = x + gate1 * self.out(y)
        a, b = self.up(self.norm2(x) * (1 + scale2) + shift2).chunk(2, dim=-1)
        return x + gate2 * self.down(functional.silu(a) * b)


class DiT(nn.Module):
    """Transformer over latent patches.

    Parameters
    ----------
    channels : int
        Latent channels.
    schema : ConditionSchema
        Conditions; may be empty.
    patch : int
        Patch side in latent pixels.
    width, depth, heads : int
        Transformer size; the width of a head must be a multiple of 4.
    skips : bool
        Long skips.
    """

    def __init__(
        self,
        channels: int,
        schema: ConditionSchema,
        *,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        skips: bool = False,
    ) -> None:
        super().__init__()
        if width % heads or (width // heads) % 4:
            raise ValueError(f"width {width} must be a multiple of 4 x heads {heads}")
        self.depth, self.width = depth, width
        self.spec: dict[str, Any] = {
            "kind": "dit",
            "channels": channels,
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
        }
        # Only where it is on: descriptions and hashes of models without it stay what they were.
        self.spec |= {"skips": True} if skips else {}
        self.stem = nn.Linear(channels * patch**2, width)
        self.embed_noise = nn.Sequential(nn.Linear(128, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 6, 64), persistent=False)
        self.embed_condition = ConditionEmbedding(schema, width)
        # Two thirds of the usual four widths: SwiGLU has three matrices where the perceptron has two.
        hidden = 8 * round(4 * width * 2 / 3 / 8)
        self.blocks = nn.ModuleList(_Block(width, heads, hidden) for _ in range(depth))
        self.merges = nn.ModuleList(_merge(width) for _ in range(depth // 2 if skips else 0))
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulate, self.out = nn.Linear(width, 2 * width), nn.Linear(width, channels * patch**2)
        for layer in (self.modulate, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, noise_level: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Apply the network; shapes as in `UNet.forward`, sides of any size (padded to the patch)."""
        n, c, h, w = x.shape
        p = self.spec["patch"]
        x = functional.pad(x, (0, -w % p, 0, -h % p))
        rows, columns = x.shape[-2] // p, x.shape[-1] // p
        tokens = x.reshape(n, c, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, c * p * p)
        angle = noise_level.float()[:, None] * self.frequencies  # type: ignore[operator]
        embedding = self.embed_noise(torch.cat([angle.cos(), angle.sin()], dim=1).to(x.dtype))
        embedding = functional.silu(embedding + self.embed_condition(conditions, n, x.device).to(x.dtype))
        head_width = self.spec["width"] // self.spec["heads"]
        cos, sin = _rotary(rows, columns, head_width, x.device)
        y = self._blocks(self.stem(tokens), embedding, cos, sin)
        shift, scale = self.modulate(embedding)[:, None].chunk(2, dim=-1)
        y = self.out(self.norm(y) * (1 + scale) + shift)
        c = self.spec["channels"]
        y = y.reshape(n, rows, columns, c, p, p).permute(0, 3, 1, 4, 2, 5).reshape(n, c, rows * p, columns * p)
        return y[..., :h, :w]

    def _blocks(self, y: Tensor, embedding: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        kept: list[Tensor] = []
        second_half = len(self.blocks) - len(self.merges)
        for i, block in enumerate(self.blocks):
            if i >= second_half:
                y = self.merges[i - second_half](torch.cat([y, kept.pop()], dim=-1))
            y = block(y, embedding, cos, sin)
            if i < len(self.merges):
                kept.append(y)
        return y
