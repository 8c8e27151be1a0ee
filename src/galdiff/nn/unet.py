"""U-Net with adaptive group normalization (Dhariwal & Nichol 2021, arXiv:2105.05233, Section 3).

The backbone for small budgets: minutes on a CPU, where it is ahead of a transformer and of the magnitude-preserving
U-Net of equal cost (docs/design.md has the figures). Changes of resolution are pixel (un)shuffles, so that nothing is
averaged away, and every residual branch starts at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.conditioning import ConditionEmbedding
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["UNet"]


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Module):
    """Two 3x3 convolutions, the second modulated by noise level and condition; self-attention by choice."""

    def __init__(self, inputs: int, outputs: int, embed: int, heads: int) -> None:
        super().__init__()
        self.norm0, self.conv0 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(embed, 2 * outputs)
        self.norm1, self.conv1 = nn.GroupNorm(8, outputs), _zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.heads = heads
        if heads:
            self.norm2, self.qkv = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, 3 * outputs, 1)
            self.out = _zero(nn.Conv2d(outputs, outputs, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.conv0(functional.silu(self.norm0(x)))
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        y = self.conv1(functional.silu(self.norm1(y) * (1 + scale) + shift))
        x = self.skip(x) + y
        if self.heads:
            n, c, h, w = x.shape
            q, k, v = (
                self.qkv(self.norm2(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)
            )
            y = functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(2, 3).reshape(n, c, h, w))
        return x


class UNet(nn.Module):
    """U-Net over latents.

    Parameters
    ----------
    channels : int
        Latent channels.
    schema : ConditionSchema
        Conditions; may be empty.
    patch : int
        Side of the patches that become channels first (pixel unshuffle): a quarter of the cost for 2.
    widths : sequence of int
        Channels of every level, multiples of 8, from the patches' resolution down by twos.
    blocks : int
        Residual blocks a level, on the way down and on the way up.
    attention : sequence of bool, optional
        Levels with self-attention; by default the lowest alone.
    head_width : int
        Channels a head.
    """

    def __init__(
        self,
        channels: int,
        schema: ConditionSchema,
        *,
        patch: int = 1,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        attention: Sequence[bool] | None = None,
        head_width: int = 32,
    ) -> None:
        super().__init__()
        attention = [i == len(widths) - 1 for i in range(len(widths))] if attention is None else list(attention)
        self.spec: dict[str, Any] = {
            "kind": "unet",
            "channels": channels,
            "patch": patch,
            "widths": list(widths),
            "blocks": blocks,
            "attention": attention,
            "head_width": head_width,
        }
        embed = 4 * widths[0]
        self.register_buffer("frequencies", 2.0 ** torch.linspace(-2, 6, 32), persistent=False)
        self.embed_noise = nn.Sequential(nn.Linear(64, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.embed_condition = ConditionEmbedding(schema, embed)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips: list[int] = []
        for level, width in enumerate(widths):
            heads = max(1, width // head_width) if attention[level] else 0
            self.encoder.append(nn.ModuleList(_Block(width, width, embed, heads) for _ in range(blocks)))
            skips += [width] * blocks
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(4 * width, widths[level + 1], 1))
        self.middle = _Block(widths[-1], widths[-1], embed, max(1, widths[-1] // head_width))
        for level in reversed(range(len(widths))):
            width, heads = widths[level], max(1, widths[level] // head_width) if attention[level] else 0
            self.decoder.append(nn.ModuleList(_Block(width + skips.pop(), width, embed, heads) for _ in range(blocks)))
            if level:
                self.up.append(nn.Conv2d(width, 4 * widths[level - 1], 1))
        self.norm = nn.GroupNorm(8, widths[0])
        self.out = _zero(nn.Conv2d(widths[0], channels * patch**2, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.depth, self.width = sum(isinstance(m, _Block) for m in self.modules()), max(widths)

    def forward(self, x: Tensor, noise_level: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        x : Tensor
            Latents ``(n, c, h, w)``, unit variance, sides of any size.
        noise_level : Tensor
            ``(n,)``, of order one (the denoiser's c_noise).
        conditions : Conditions, optional
            ``n`` rows; None is unconditional.

        Returns
        -------
        Tensor
            ``(n, c, h, w)``.
        """
        h, w = x.shape[-2:]
        patch = self.spec["patch"]
        stride = patch * 2 ** len(self.down)
        x = functional.pixel_unshuffle(functional.pad(x, (0, -w % stride, 0, -h % stride)), patch)
        angle = noise_level.float()[:, None] * self.frequencies  # type: ignore[operator]
        embedding = self.embed_noise(torch.cat([angle.cos(), angle.sin()], dim=1).to(x.dtype))
        embedding = functional.silu(embedding + self.embed_condition(conditions, len(x), x.device).to(x.dtype))
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:  # type: ignore[attr-defined]
                skips.append(x := block(x, embedding))
            if level < len(self.down):
                x = self.down[level](functional.pixel_unshuffle(x, 2))
        x = self.middle(x, embedding)
        for level, blocks in enumerate(self.decoder):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat([x, skips.pop()], dim=1), embedding)
            if level < len(self.up):
                x = functional.pixel_shuffle(self.up[level](x), 2)
        return functional.pixel_shuffle(self.out(functional.silu(self.norm(x))), patch)[..., :h, :w]
