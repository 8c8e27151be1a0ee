"""Laws of the wavelet packets, and options of encoder and decoder."""

import pytest
import torch

from galdiff.nn import Decoder, Encoder
from galdiff.nn.haar import haar_packets, inverse_haar_packets


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_packets_are_orthonormal(levels):
    x = torch.randn(2, 3, 24, 16)
    y = haar_packets(x, levels)
    assert y.shape == (2, 3 * 4**levels, 24 >> levels, 16 >> levels)
    torch.testing.assert_close(inverse_haar_packets(y, levels), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(y.double().square().sum(), x.double().square().sum())
    other = torch.randn_like(x)
    torch.testing.assert_close((y * haar_packets(other, levels)).sum(), (x * other).sum(), atol=1e-3, rtol=1e-5)


def test_packets_are_by_definition():
    """Along x: sums and differences of neighbors over the root of two, once for either direction."""
    x = torch.randn(1, 1, 4, 6, dtype=torch.float64)
    low, high = (x[..., ::2] + x[..., 1::2]) / 2**0.5, (x[..., ::2] - x[..., 1::2]) / 2**0.5
    expected = [half[..., ::2, :] + sign * half[..., 1::2, :] for sign in (1, -1) for half in (low, high)]
    torch.testing.assert_close(haar_packets(x, 1), torch.cat(expected, dim=1) / 2**0.5)


def test_a_smooth_image_has_its_energy_in_the_first_packet():
    y, x = torch.meshgrid(torch.linspace(0, 3, 32), torch.linspace(0, 3, 32), indexing="ij")
    packets = haar_packets((y.sin() + x.cos() + 2)[None, None], 2)
    energy = packets.square().sum(dim=(0, 2, 3))
    assert energy[0] > 0.99 * energy.sum()


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("options", [{"stem": "haar"}, {"attention": True, "norm": "rms"}])
def test_options_at_every_factor(factor, options):
    size = {"factor": factor, "width": 8, "blocks": 1, **options}
    encoder, decoder = Encoder(2, 5, **size), Decoder(5, 2, extra=3, activation="tanh", **size)
    x = torch.randn(1, 2, 3 * factor, 5 * factor)
    z = encoder(x)
    assert z.shape == (1, 5, 3, 5)
    image, extra = decoder(z)
    assert image.shape == x.shape
    assert extra.shape[:2] == (1, 3)
    (image.sum() + extra.sum()).backward()
    assert all(p.grad is not None for part in (encoder, decoder) for p in part.parameters())


def test_tanh_bounds_the_image_and_linear_does_not():
    z = 100 * torch.randn(2, 4, 4, 4)
    torch.manual_seed(0)
    linear = Decoder(4, 1, extra=1, factor=2, width=16)
    torch.manual_seed(0)
    bounded = Decoder(4, 1, extra=1, factor=2, width=16, activation="tanh")
    assert linear(z)[0].abs().max() > 2
    torch.testing.assert_close(bounded(z)[0], linear(z)[0].tanh())


def test_attention_knows_no_direction():
    torch.manual_seed(0)
    encoder = Encoder(1, 2, factor=1, width=16, blocks=0, attention=True)
    attention = encoder.layers[2]
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(1, 16, 6, 6)
    torch.testing.assert_close(attention(x.rot90(1, (2, 3))), attention(x).rot90(1, (2, 3)), atol=1e-5, rtol=1e-5)
    assert (attention(x) - x).abs().max() > 0.1


def test_what_is_no_option_is_refused():
    for wrong in ({"stem": "conv"}, {"norm": "batch"}):
        with pytest.raises(ValueError, match="is not"):
            Encoder(1, 2, width=16, **wrong)
    with pytest.raises(ValueError, match="relu"):
        Decoder(2, 1, width=16, activation="relu")
