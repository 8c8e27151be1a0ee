"""Magnitude-preserving U-Net with attention (EDM2, Karras et al. 2024, arXiv:2312.02696, Figure 21).

Sized by its constructor from a tenth of a million parameters upward; the levels may be any number, and any latent
size works whose sides the levels divide after padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from galdiff.nn.conditioning import ConditionFeatures
from galdiff.nn.magnitude import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, normalize
from galdiff.schema.conditions import Conditions, ConditionSchema

__all__ = ["EDM2UNet"]

_RESIDUAL, _ATTENTION, _CONDITION = 0.3, 0.3, 0.5  # blending weights of the paper's Table 6


class _Attention(nn.Module):
    """Self-attention with cosine similarity: queries, keys and values are normalized (Section B.6)."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.qkv, self.out = MPConv(channels, 3 * channels, 1), MPConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(x).reshape(n, self.heads, c // self.heads, 3, h * w)
        q, k, v = normalize(qkv, [2]).permute(3, 0, 1, 4, 2)
        y = functional.scaled_dot_product_attention(q, k, v)
        return mp_sum(x, self.out(y.transpose(2, 3).reshape(n, c, h, w)), _ATTENTION)


class _Block(nn.Module):
    """Residual block; the encoder's normalizes its input pixel by pixel, the decoder's projects its skip."""

    def __init__(
        self, inputs: int, outputs: int, width: int, *, decoder: bool, resample: str = "", head_width: int = 0
    ) -> None:
        super().__init__()
        self.decoder, self.resample = decoder, resample
        self.project = MPConv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.conv0 = MPConv(inputs if decoder else outputs, outputs, 3)
        self.modulate, self.gain = MPConv(width, outputs), nn.Parameter(torch.zeros([]))
        self.conv1 = MPConv(outputs, outputs, 3)
        self.attention = _Attention(outputs, head_width) if head_width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        if not self.decoder:
            x = normalize(self.project(x), [1])
        y = self.conv0(mp_silu(x))
        scale = self.modulate(embedding, gain=self.gain) + 1
        y = self.conv1(mp_silu(y * scale[:, :, None, None].to(y.dtype)))
        if self.decoder:
            x = self.project(x)
        return self.attention(mp_sum(x, y, _RESIDUAL))


class EDM2UNet(nn.Module):
    """EDM2's U-Net over latents.

    Parameters
    ----------
    channels : int
        Latent channels.
    schema : ConditionSchema
        Conditions; may be empty.
    patch : int
        Side of the patches that become channels first (pixel unshuffle): a quarter of the cost for 2.
    widths : sequence of int
        Channels of every level, from the patches' resolution down by twos.
    blocks : int
        Residual blocks a level (the decoder has one more, as in the paper).
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
        blocks: int = 2,
        attention: Sequence[bool] | None = None,
        head_width: int = 64,
    ) -> None:
        super().__init__()
        attention = [i == len(widths) - 1 for i in range(len(widths))] if attention is None else list(attention)
        self.spec: dict[str, Any] = {
            "kind": "edm2",
            "channels": channels,
            "patch": patch,
            "widths": list(widths),
            "blocks": blocks,
            "attention": attention,
            "head_width": head_width,
        }
        embed = 2 * max(widths)
        self.fourier, self.embed_noise = MPFourier(widths[0]), MPConv(widths[0], embed)
        self.features = ConditionFeatures(schema)
        # A single layer of unit-magnitude features, as the paper has of one-hot classes.
        self.embed_condition = MPConv(self.features.count, embed) if self.features.count else None
        self.stem = MPConv(channels * patch**2 + 1, widths[0], 3)
        skips, here = [widths[0]], widths[0]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self._takes_skip: list[bool] = []  # by block of the decoder
        for level, width in enumerate(widths):
            heads = head_width if attention[level] else 0
            if level:
                self.encoder.append(_Block(here, here, embed, decoder=False, resample="down"))
                skips.append(here)
            for _ in range(blocks):
                self.encoder.append(_Block(here, width, embed, decoder=False, head_width=heads))
                skips.append(here := width)
        for level in reversed(range(len(widths))):
            heads, width = head_width if attention[level] else 0, widths[level]
            if level == len(widths) - 1:
                self.decoder.append(_Block(here, here, embed, decoder=True, head_width=heads))
            else:
                self.decoder.append(_Block(here, here, embed, decoder=True, resample="up"))
            self._takes_skip += [False] + [True] * (blocks + 1)
            for _ in range(blocks + 1):
                self.decoder.append(_Block(here + skips.pop(), width, embed, decoder=True, head_width=heads))
                here = width
        self.out, self.out_gain = MPConv(here, channels * patch**2, 3), nn.Parameter(torch.zeros([]))
        self.depth, self.width = sum(isinstance(m, _Block) for m in self.modules()), max(widths)

    def forward(self, x: Tensor, noise_level: Tensor, conditions: Conditions | None = None) -> Tensor:
        """Apply the network.

        Parameters
        ----------
        x : Tensor
            Latents ``(n, c, h, w)``, unit variance.
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
        patch, stride = self.spec["patch"], 2 ** (len(self.spec["widths"]) - 1) * self.spec["patch"]
        x = functional.pixel_unshuffle(functional.pad(x, (0, -w % stride, 0, -h % stride)), patch)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).contiguous(memory_format=torch.channels_last)
        embedding = self.embed_noise(self.fourier(noise_level).to(x.dtype))
        if self.embed_condition is not None:
            known = normalize(self.features(conditions, len(x), x.device), [1]).to(x.dtype)
            embedding = mp_sum(embedding, self.embed_condition(known), _CONDITION)
        embedding = mp_silu(embedding)
        x = self.stem(x)
        skips = [x]
        for block in self.encoder:
            skips.append(x := block(x, embedding))
        for block, takes_skip in zip(self.decoder, self._takes_skip, strict=True):
            if takes_skip:
                x = mp_cat(x, skips.pop())
            x = block(x, embedding)
        return functional.pixel_shuffle(self.out(x, gain=self.out_gain), patch)[..., :h, :w]
