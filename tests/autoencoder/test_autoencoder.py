"""Laws of the noise model and of the autoencoder."""

import numpy as np
import pytest
import torch
from damage import flip
from scipy.ndimage import convolve1d
from torch import Tensor

from galdiff.autoencoder import (
    AutoencoderLoss,
    Grain,
    KLAutoencoder,
    LatentPosterior,
    gradient_loss,
    load_autoencoder,
    starlet,
)
from galdiff.autoencoder.grain import SCALES
from galdiff.errors import CheckpointError
from galdiff.randomness import Draws, normal


def correlated_noise(n: int, bands: int = 3, size: int = 64) -> Tensor:
    """Noise smoothed by a pixel, with bands that share most of it: like the sky of a survey's JPEGs."""
    torch.manual_seed(1)
    white = torch.randn(n, bands, size, size)
    k = torch.fft.fftfreq(size)
    transfer = torch.exp(-4.0 * (k[:, None] ** 2 + k[None] ** 2))
    smooth = torch.fft.ifft2(torch.fft.fft2(white) * transfer).real
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.7, 0.2, 0.5]])[:bands, :bands]
    return 0.1 * torch.einsum("ab,nbyx->nayx", mix, smooth)


def spectrum(x: Tensor) -> Tensor:
    """Mean power in four rings of spatial frequency, (band, ring)."""
    power = torch.fft.fft2(x).abs().square().mean(0)
    k = torch.fft.fftfreq(x.shape[-1])
    radius = torch.hypot(k[:, None], k[None])
    edges = [0.06, 0.12, 0.25, 0.35, 0.5]
    rings = [(radius >= a) & (radius < b) for a, b in zip(edges, edges[1:], strict=False)]
    return torch.stack([power[:, ring].mean(1) for ring in rings], dim=1)


def test_levels_of_a_decoder_in_training_depend_on_nothing_that_it_says():
    """What is measured of one decoder would run away with another: images far from the measured ones stay calm."""
    noise, maps = correlated_noise(128), 0.1 * torch.randn(128, 9, 16, 16) - 3
    grain = Grain(3)
    grain.calibrate(torch.zeros_like(noise), noise, maps, by_content=False)
    assert (grain.effect[1:] == 0).all()
    assert (grain.effect[0] != 0).any()
    index = torch.arange(64)
    white, scatter = (normal(0, "x", index, shape) for shape in ((9, 64, 64), (9,)))
    far = grain(50 + torch.zeros(64, 3, 64, 64), maps[:64], white, scatter)
    assert float(far.std()) == pytest.approx(float(noise.std()), rel=0.2)


def test_grain_is_the_same_bits_under_autocast():
    noise, maps = correlated_noise(64, size=32), 0.1 * torch.randn(64, 9, 8, 8) - 3
    white, scatter = (normal(0, "x", torch.arange(64), shape) for shape in ((9, 32, 32), (9,)))
    drawn = []
    for enabled in (False, True):
        grain = Grain(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            grain.calibrate(torch.zeros_like(noise), noise, maps)
            drawn.append(grain(noise, maps, white, scatter))
    assert torch.equal(*drawn)


class TestStarlet:
    def test_scales_are_differences_of_images_smoothed_by_splines_with_holes(self):
        x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
        before, planes = x.numpy(), starlet(x, scales=3)
        for j in range(3):
            spline = np.zeros(4 * 2**j + 1)
            spline[:: 2**j] = np.array([1, 4, 6, 4, 1]) / 16
            smooth = convolve1d(convolve1d(before, spline, axis=2, mode="mirror"), spline, axis=3, mode="mirror")
            np.testing.assert_allclose(planes[:, j], before - smooth, atol=1e-12)
            before = smooth

    def test_commutes_with_quarter_turns(self):
        x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
        torch.testing.assert_close(starlet(torch.rot90(x, 1, (2, 3))), torch.rot90(starlet(x), 1, (3, 4)))

    def test_small_images(self):
        assert starlet(torch.randn(1, 1, 4, 5)).shape == (1, SCALES, 1, 4, 5)


class TestGrain:
    def fitted(self, residual: Tensor) -> tuple[Grain, Tensor]:
        """A noise model whose maps are the true local scale of every wavelet scale."""
        grain = Grain(residual.shape[1])
        std = starlet(residual).square().mean((0, 3, 4)).sqrt().flatten()
        maps = std.log().view(1, -1, 1, 1).expand(len(residual), -1, 16, 16)
        grain.calibrate(torch.zeros_like(residual), residual, maps)
        return grain, maps

    def drawn(self, grain: Grain, maps: Tensor, mean: Tensor | None = None) -> Tensor:
        index = torch.arange(len(maps))
        white, scatter = (normal(1, "grain", index, (SCALES * 3, *shape)) for shape in ((64, 64), ()))
        return grain(torch.zeros(len(maps), 3, 64, 64) if mean is None else mean, maps, white, scatter)

    def test_draws_have_the_spectrum_and_the_band_correlation_of_the_residual(self):
        residual = correlated_noise(64)
        grain, maps = self.fitted(residual)
        drawn = self.drawn(grain, maps)
        ratio = spectrum(drawn) / spectrum(residual)
        assert ratio[:, 1:].min() > 0.75
        assert ratio[:, 1:].max() < 1.25
        real, made = (torch.corrcoef(x.transpose(0, 1).flatten(1)) for x in (residual, drawn))
        torch.testing.assert_close(made, real, atol=0.06, rtol=0)

    def test_amplitude_is_local(self):
        residual = correlated_noise(16)
        grain, maps = self.fitted(residual)
        maps = maps.clone()
        maps[..., 8:] += torch.log(torch.tensor(3.0))
        drawn = self.drawn(grain, maps)
        left, right = drawn[..., 4:24].std(), drawn[..., 40:60].std()
        assert (right / left).item() == pytest.approx(3.0, rel=0.1)

    def test_levels_scatter_between_images_and_follow_the_sky(self):
        # The maps know nothing: a level that follows the sky's, and scatter about it, are for the calibration to find.
        n = 256
        sky = torch.linspace(-1, 1, n).view(-1, 1, 1, 1).expand(n, 3, 64, 64).contiguous()
        log_gain = 0.3 * sky[:, :1, :1, :1] + 0.15 * torch.randn(n, 1, 1, 1, generator=torch.manual_seed(0))
        residual = correlated_noise(n) * log_gain.exp()
        grain = Grain(3)
        maps = torch.full((n, SCALES * 3, 16, 16), -1.0)
        grain.calibrate(sky, residual, maps)
        drawn = self.drawn(grain, maps, sky)
        real, made = (x.std(dim=(1, 2, 3)).log() for x in (residual, drawn))
        assert made.mean().item() == pytest.approx(real.mean().item(), abs=0.03)
        slopes = [torch.corrcoef(torch.stack([x, sky[:, 0, 0, 0]]))[0, 1] for x in (real, made)]
        assert slopes[1].item() == pytest.approx(slopes[0].item(), abs=0.1)
        assert made.std().item() == pytest.approx(real.std().item(), rel=0.15)

    def test_likelihood_is_least_at_the_true_scale(self):
        residual = correlated_noise(8)
        grain, maps = self.fitted(residual)
        best = grain.loss(residual, maps)
        assert best < grain.loss(residual, maps + 0.2)
        assert best < grain.loss(residual, maps - 0.2)


class TestAutoencoder:
    def model(self) -> KLAutoencoder:
        torch.manual_seed(0)
        return KLAutoencoder(3, factor=4, channels=4, width=16, blocks=1)

    def test_posterior_sampling_and_kl(self):
        posterior = LatentPosterior(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
        assert torch.equal(posterior.kl(), torch.zeros(2))
        mean, log_var = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
        q = torch.distributions.Normal(mean, (0.5 * log_var).exp())
        expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
        torch.testing.assert_close(LatentPosterior(mean, log_var).kl()[0], expected)

    def test_no_way_around_the_latent(self):
        model = self.model().eval()
        x = torch.randn(2, 3, 16, 16, requires_grad=True)
        z = model.encode(x).mean
        model.decode(z.detach()).mean.sum().backward()
        assert x.grad is None

    def test_noise_is_drawn_by_sample_number(self):
        model = self.model().eval()
        decoded = model.decode(torch.randn(3, 4, 4, 4))
        index = torch.tensor([5, 6, 7])
        together = decoded.sample(0, index)
        alone = type(decoded)(decoded.mean[1:2], decoded.maps[1:2], decoded.grain).sample(0, index[1:2])
        torch.testing.assert_close(alone[0], together[1])
        assert not torch.equal(together, decoded.mean)

    def test_save_and_load(self, tmp_path):
        model = self.model().eval()
        model.save(tmp_path)
        again = load_autoencoder(tmp_path)
        x = torch.randn(1, 3, 16, 16)
        assert torch.equal(again.encode(x).mean, model.encode(x).mean)
        decoder = load_autoencoder(tmp_path, part="decoder")
        assert torch.equal(decoder.decode(torch.ones(1, 4, 4, 4)).mean, model.decode(torch.ones(1, 4, 4, 4)).mean)
        assert {p.name for p in tmp_path.iterdir()} == {"encoder.safetensors", "decoder.safetensors", "spec.json"}

    @pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "other"])
    def test_damaged_files_are_named(self, tmp_path, damage):
        self.model().save(tmp_path)
        weights = tmp_path / "encoder.safetensors"
        if damage == "missing":
            weights.unlink()
        elif damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        elif damage == "flipped":
            flip(weights, -99)
        else:
            KLAutoencoder(1, factor=2, channels=1, width=8).save(tmp_path / "b")
            weights.write_bytes((tmp_path / "b" / "encoder.safetensors").read_bytes())
        named = "encoder.safetensors do not match their hash" if damage == "flipped" else ""
        with pytest.raises(CheckpointError, match=f"cannot load the autoencoder.*{named}") as caught:
            load_autoencoder(tmp_path)
        assert "--redo autoencoder" in caught.value.remedy

    def test_the_mean_is_not_trained_by_the_likelihood(self):
        model = self.model()
        x = torch.randn(2, 3, 16, 16)
        grads = []
        for grain in (0.0, 1.0):
            model.zero_grad()
            AutoencoderLoss(grain=grain)(model, x, Draws(0, range(2)))[0].backward()
            grads.append(model.decoder.image[0].weight.grad.clone())
        torch.testing.assert_close(grads[0], grads[1])

    @pytest.mark.slow
    def test_learns_equivariant_latents(self):
        """Turning a latent turns its image, though every image of the training lies the same way."""
        torch.manual_seed(0)
        yy, xx = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
        center = torch.rand(256, 2) - 0.5
        r = (xx - center[:, :1, None]) ** 2 + 3 * (yy - center[:, 1:, None]) ** 2
        x = (2 * torch.exp(-8 * r) - 1)[:, None].repeat(1, 3, 1, 1)
        model = KLAutoencoder(3, factor=4, channels=4, width=32, blocks=1)
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        loss = AutoencoderLoss()
        for step in range(300):
            rows = torch.arange(32) + 32 * (step % 8)
            value, _ = loss(model, x[rows], Draws(0, range(32 * step, 32 * step + 32)))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        with torch.no_grad():
            z = model.encode(x).mean
            plain = (model.decode(z).mean - x).square().mean()
            turned = (model.decode(torch.rot90(z, 1, (2, 3))).mean - torch.rot90(x, 1, (2, 3))).square().mean()
        untrained = (torch.rot90(x, 1, (2, 3)) - x).square().mean()
        assert plain < 0.02 * x.var()
        assert turned < 0.02 * untrained


def test_gradient_loss_sees_edges_and_not_levels():
    x = torch.zeros(1, 1, 8, 8)
    assert gradient_loss(x, x + 3.0) == 0
    edge = x.clone()
    edge[..., 4:] = 1.0
    assert gradient_loss(x, edge) > 0
