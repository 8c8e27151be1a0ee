"""Laws of the autoencoder's objective."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from galdiff.autoencoder import AutoencoderLoss, KLAutoencoder, LatentPosterior, gradient_loss
from galdiff.autoencoder.adversarial import adaptive_weight, adversarial_terms, hinge_loss
from galdiff.autoencoder.deviation import pixel_noise, stretched_deviation
from galdiff.autoencoder.loss import pixel_loss
from galdiff.autoencoder.statistics import effective_dimension, equivariance_error, latent_statistics
from galdiff.nn import PatchDiscriminator, dihedral
from galdiff.randomness import Draws


@pytest.fixture
def model():
    torch.manual_seed(0)
    return KLAutoencoder(3, factor=4, channels=4, width=16, blocks=1)


@pytest.fixture
def discriminator():
    torch.manual_seed(1)
    return PatchDiscriminator(3, width=8)


def images(n=4, size=16, seed=2):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def number(value):
    return float(value.detach())


def gradients(module):
    return [None if p.grad is None else p.grad.clone() for p in module.parameters()]


class TestPixels:
    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            ("l1", lambda d: np.abs(d)),
            ("l2", lambda d: d**2),
            ("huber", lambda d: np.where(np.abs(d) < 0.1, d**2 / 0.2, np.abs(d) - 0.05)),
        ],
    )
    def test_penalties(self, kind, expected):
        x, y = images(seed=3) * 0.1, images(seed=4) * 0.1
        assert float(pixel_loss(x, y, kind)) == pytest.approx(expected((x - y).numpy()).mean(), rel=1e-5)

    @pytest.mark.parametrize("kind", ["l1", "l2", "huber"])
    def test_a_mask_is_a_mean_over_what_is_left(self, kind):
        x, y = images(seed=3), images(seed=4)
        valid = torch.zeros(x.shape, dtype=torch.bool)
        valid[..., :5] = True
        torch.testing.assert_close(pixel_loss(x, y, kind, valid), pixel_loss(x[..., :5], y[..., :5], kind))
        whole = torch.ones_like(valid)
        torch.testing.assert_close(pixel_loss(x, y, kind, whole), pixel_loss(x, y, kind))
        torch.testing.assert_close(gradient_loss(x, y, valid=whole), gradient_loss(x, y))


class TestMasks:
    def test_targets_that_are_masked_change_nothing(self, model, discriminator, monkeypatch):
        """In no term: the encoder is shown the same image, and what it is compared with differs where it is masked."""
        x, valid = images(), torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5)) > 0.3
        posterior = model.encode(x)
        monkeypatch.setattr(model, "encode", lambda _: posterior)
        loss = AutoencoderLoss(chi2=0.1, scale_equivariance=0.3, adversarial=0.5, pixel="huber")
        discriminator.eval()  # its spectral norms stay
        found = []
        for other in (x, torch.where(valid, x, 1e3 * images(seed=6))):
            deviation = torch.where(valid, 0.1, other.abs() + 1)
            _, figures = loss(
                model, other, Draws(0, range(4)), valid=valid, deviation=deviation, discriminator=discriminator
            )
            model.zero_grad()
            # The discriminator's own loss sees the real pixels on both sides, alike, wherever they are masked.
            parts = {k: v for k, v in figures.items() if not k.startswith("d_")}
            reconstruction = sum(parts.values())
            reconstruction.backward(retain_graph=True)
            found.append(({k: number(v) for k, v in parts.items()}, gradients(model.decoder)))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
        for a, b in zip(found[0][1], found[1][1], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b)

    def test_what_a_decoder_says_there_costs_nothing(self, model):
        x, valid = images(), torch.ones(4, 3, 16, 16, dtype=torch.bool)
        valid[:, :, 3:9, 4:7] = False
        x.requires_grad_(True)
        monkey = model.encode(x.detach())
        model.encode = lambda _: monkey
        loss, _ = AutoencoderLoss(dihedral=False, scale_equivariance=1.0)(model, x, Draws(0, range(4)), valid=valid)
        (slope,) = torch.autograd.grad(loss, x)
        assert (slope[~valid] == 0).all()
        assert (slope[valid] != 0).float().mean() > 0.9

    def test_a_whole_mask_is_no_mask(self, model):
        x = images()
        plain, masked = (
            AutoencoderLoss()(model, x, Draws(0, range(4)), valid=valid)[1]
            for valid in (None, torch.ones(x.shape, dtype=torch.bool))
        )
        for name in plain:
            torch.testing.assert_close(plain[name], masked[name])

    def test_masks_turn_with_their_images(self, model):
        """Band 0 is masked where the image is bright: wherever it is turned to, it does not count."""
        x = torch.zeros(8, 3, 16, 16)
        x[:, :, 2:5, 9:14] = 100.0
        posterior = LatentPosterior(torch.zeros(8, 4, 4, 4), torch.zeros(8, 4, 4, 4))
        model.encode = lambda _: posterior
        value = AutoencoderLoss()(model, x, Draws(0, range(8)), valid=x == 0)[1]["l1"]
        assert value < 5


class TestDivergence:
    def test_no_gradient_below_the_free_bits(self):
        mean = torch.full((2, 3, 4, 4), 0.1)
        mean[:, 2] = 3.0
        mean.requires_grad_(True)
        log_var = torch.zeros(2, 3, 4, 4, requires_grad=True)
        loss = AutoencoderLoss(free_bits=0.5)._divergence(LatentPosterior(mean, log_var))
        loss.backward()
        assert (mean.grad[:, :2] == 0).all()
        assert (mean.grad[:, 2] > 0).all()
        assert number(loss) == pytest.approx((0.5 + 0.5 + 4.5) / 3)

    def test_channels_above_are_pressed_as_before(self):
        posterior = LatentPosterior(images() + 3, 0.1 * images(seed=7))
        assert number(AutoencoderLoss(free_bits=0.5)._divergence(posterior)) == pytest.approx(
            number(posterior.kl().mean())
        )

    def test_warm_up_is_linear_in_the_position(self, model):
        x, values = images(), {}
        loss = AutoencoderLoss(kl=1.0, kl_warmup_images=100)
        for start in (0, 49, 99, 500):
            value, figures = loss(model, x, Draws(0, range(start, start + 4)))
            value = value - AutoencoderLoss(kl=0.0)(model, x, Draws(0, range(start, start + 4)))[0]
            values[start] = number(value / figures["kl"])
        assert values == pytest.approx({0: 0.01, 49: 0.5, 99: 1.0, 500: 1.0}, rel=1e-3)


class TestChiSquare:
    @pytest.mark.parametrize("sigma", [0.01, 0.3])
    def test_noise_is_measured_under_an_object(self, sigma):
        r = torch.hypot(*torch.meshgrid(torch.arange(64.0) - 32, torch.arange(64.0) - 32, indexing="ij"))
        pixels = 20 * sigma * torch.exp(-r / 6) + sigma * images(8, 64)
        np.testing.assert_allclose(pixel_noise(pixels), sigma, rtol=0.1)

    def test_masked_pixels_are_not_looked_at(self):
        pixels, valid = 0.1 * images(4, 64), torch.ones(4, 3, 64, 64, dtype=torch.bool)
        valid[:, :, :, :40] = False
        noisy = torch.where(valid, pixels, 5 * images(4, 64, seed=9))
        np.testing.assert_allclose(pixel_noise(noisy, valid), 0.1, rtol=0.15)

    def test_deviation_is_the_noise_times_the_slope(self):
        pixels = 5 + 0.01 * images(2, 64)
        found = stretched_deviation(pixels, torch.sqrt)
        torch.testing.assert_close(found, pixel_noise(pixels) * 0.5 / pixels.sqrt(), rtol=1e-3, atol=0)

    def test_it_is_finite_where_a_stretch_has_a_vertical_tangent_and_a_sky_is_constant(self):
        def stretch(v):
            return v.sign() * v.abs().sqrt()

        pixels = torch.zeros(1, 1, 32, 32)
        pixels[..., 12:20, 12:20] = 1.0
        found = stretched_deviation(pixels, stretch)
        assert found.isfinite().all()
        assert (found > 0).all()

    def test_a_perfect_mean_has_one(self, model):
        noise = images(16, 32)
        model.decode = lambda z: replace(KLAutoencoder.decode(model, z), mean=torch.zeros_like(noise))
        sigma = pixel_noise(noise).expand_as(noise)
        loss = AutoencoderLoss(chi2=1.0, dihedral=False)
        _, figures = loss(model, noise, Draws(0, range(16)), deviation=sigma)
        assert number(figures["chi2"]) == pytest.approx(1, rel=0.05)


@pytest.mark.slow
def test_latents_turn_with_their_galaxies_only_if_they_are_taught_to():
    """Every image of the training lies the same way."""
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    center = torch.rand(256, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    r = (xx - center[:, :1, None]) ** 2 + 4 * (yy - center[:, 1:, None]) ** 2
    x = (2 * torch.exp(-6 * r) - 1)[:, None].repeat(1, 3, 1, 1)
    found = {}
    for taught in (False, True):
        loss = AutoencoderLoss(dihedral=taught)
        torch.manual_seed(0)
        model = KLAutoencoder(3, factor=4, channels=4, width=16, blocks=1)
        optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
        for step in range(120):
            rows = torch.arange(32) + 32 * (step % 8)
            value, _ = loss(model, x[rows], Draws(0, range(32 * step, 32 * step + 32)))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        found[taught] = equivariance_error(model, x)
    assert found[True]["equivariance_error"] < 0.3 * found[False]["equivariance_error"]
    assert found[True]["equivariance_mse"] < 1.2 * found[True]["mse"]
    assert found[True]["mse"] < 0.5 * float(x.var())


class TestScaleEquivariance:
    def test_it_is_the_loss_of_halves(self, model):
        x = images(2)
        _, figures = AutoencoderLoss(scale_equivariance=0.5, dihedral=False)(model, x, Draws(0, range(2)))
        z = model.encode(x).sample(Draws(0, range(2)).normal("latent", (4, 4, 4)))
        small = model.decode(z.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))).mean
        expected = (small - functional.interpolate(x, scale_factor=0.5, mode="area")).abs().mean()
        torch.testing.assert_close(figures["half_size"], expected)

    def test_off_it_costs_nothing(self, model):
        calls = []
        decode = model.decode
        model.decode = lambda z: calls.append(z) or decode(z)
        AutoencoderLoss()(model, images(), Draws(0, range(4)))
        assert len(calls) == 1


class TestAdversary:
    def test_patches_and_their_reach(self, discriminator):
        x = images(2, 64).requires_grad_(True)
        logits = discriminator(x)
        assert logits.shape == (2, 1, 8, 8)
        (slope,) = torch.autograd.grad(logits[0, 0, 4, 4], x)
        rows = torch.nonzero(slope[0].abs().sum(dim=(0, 2))).flatten()
        assert int(rows.max() - rows.min()) + 1 == 38
        assert (slope[1] == 0).all()

    def test_spectral_norms_are_one(self, discriminator):
        for _ in range(30):
            discriminator(images())
        for layer in discriminator.modules():
            if isinstance(layer, nn.Conv2d):
                assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(
                    1, abs=0.02
                )

    def test_hinge(self):
        assert hinge_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])) == pytest.approx(0.5 * (0.25 + 0.5))

    def test_the_weight_is_the_ratio_of_the_gradients(self, model, discriminator):
        """Against backward passes, one loss at a time."""
        x, last = images(), model.decoder.last_weight
        norms = []
        for which in range(2):
            model.zero_grad()
            made = model.decode(model.encode(x).mean).mean
            (((made - x).abs().mean()) if which == 0 else -discriminator.eval()(made).mean()).backward()
            norms.append(float(last.grad.norm()))
        made = model.decode(model.encode(x).mean).mean
        found = adaptive_weight((made - x).abs().mean(), -discriminator(made).mean(), last)
        assert float(found) == pytest.approx(norms[0] / (norms[1] + 1e-4), rel=1e-4)
        assert not found.requires_grad

    def test_one_backward_pass_keeps_the_gradients_apart(self, model, discriminator):
        x = images()
        discriminator.eval()

        def losses():
            made = model.decode(model.encode(x).mean).mean
            rec = (made - x).abs().mean()
            return rec, adversarial_terms(discriminator, x, made, rec, model.decoder.last_weight)

        found = {}
        for which in ("sum", "generator", "discriminator"):
            model.zero_grad()
            discriminator.zero_grad()
            _, terms = losses()
            (terms.generator + terms.discriminator if which == "sum" else getattr(terms, which)).backward()
            found[which] = gradients(model.decoder), gradients(discriminator)
        for a, b in zip(found["sum"][0], found["generator"][0], strict=True):
            assert (a is None and b is None) or torch.allclose(a, b)
        for a, b in zip(found["sum"][1], found["discriminator"][1], strict=True):
            torch.testing.assert_close(a, b)
        assert all(g is None for g in found["generator"][1])
        assert all(g is None for g in found["discriminator"][0])

    def test_it_comes_in_at_its_start(self, model, discriminator):
        loss = AutoencoderLoss(adversarial=0.5, adversarial_start=10)
        for start, there in ((0, False), (6, False), (7, True), (10, True)):
            _, figures = loss(model, images(), Draws(0, range(start, start + 4)), discriminator=discriminator)
            assert ("d_real" in figures) is there

    def test_no_transform_sees_bfloat16(self, model, discriminator, monkeypatch):
        """On CUDA there is none, and autocast does not widen them there as it does on a CPU."""
        seen, transform = [], torch.fft.rfft2
        monkeypatch.setattr(torch.fft, "rfft2", lambda x, **more: (seen.append(x.dtype), transform(x, **more))[1])
        with torch.autocast("cpu", torch.bfloat16):
            model.calibrate(images())
            loss, _ = AutoencoderLoss(adversarial=0.5)(model, images(), Draws(0, range(4)), discriminator=discriminator)
        assert torch.isfinite(loss)
        assert set(seen) == {torch.float32}

    def test_it_is_shown_the_noise_but_does_not_train_it(self, model, discriminator):
        shown = []
        discriminator.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].detach()))
        x = images()
        loss = AutoencoderLoss(adversarial=1.0, grain=0.0, dihedral=False)
        value, _ = loss(model, x, Draws(3, range(4)), discriminator=discriminator)
        value.backward()
        decoded = model.decode(model.encode(x).sample(Draws(3, range(4)).normal("latent", (4, 4, 4))))
        torch.testing.assert_close(shown[0], decoded.sample(3, torch.arange(4)).detach())
        assert model.decoder.extra.weight.grad is None or (model.decoder.extra.weight.grad == 0).all()


class TestStatistics:
    @pytest.mark.parametrize("n", [60, 400])
    def test_dimension_of_white_numbers_is_theirs(self, n):
        z = torch.randn(n, 200, generator=torch.Generator().manual_seed(0))
        assert effective_dimension(z) == pytest.approx(200, rel=0.1)

    def test_dimension_is_the_participation_ratio(self):
        scale = torch.linspace(0.1, 3, 30, dtype=torch.float64)
        z = scale * torch.randn(4000, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert effective_dimension(z) == pytest.approx(float((scale**2).sum() ** 2 / (scale**4).sum()), rel=0.03)
        assert np.isnan(effective_dimension(z[:3]))

    def test_statistics_by_channel(self):
        mean = torch.randn(500, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        mean = mean * torch.tensor([1.0, 2.0, 0.01])[:, None, None] + torch.tensor([0.0, 5.0, 0.0])[:, None, None]
        found = latent_statistics(LatentPosterior(mean, torch.zeros_like(mean)))
        np.testing.assert_allclose(found["latent_mean"], [0, 5, 0], atol=0.1)
        np.testing.assert_allclose(found["latent_std"], [1, 2, 0.01], rtol=0.05)
        np.testing.assert_allclose(found["latent_kurtosis"], 0, atol=0.2)
        np.testing.assert_allclose(found["latent_kl"], [0.5, 14.5, 5e-5], rtol=0.05)
        assert found["latent_active"] == pytest.approx(2 / 3)
        # Sixteen elements of variance 1 and sixteen of 4; the third channel hardly counts.
        assert found["latent_dimension"] == pytest.approx(80**2 / (16 * 17), rel=0.05)

    def test_a_coder_that_commutes_has_no_error(self, model):
        x = images()
        plain = equivariance_error(model.eval(), x)
        assert plain["equivariance_error"] > 1e-3

        class Pooling(nn.Module):
            def forward(self, y):
                return functional.avg_pool2d(y, 4).repeat(1, 3, 1, 1)[:, :8]

        class Spreading(nn.Module):
            def forward(self, z):
                y = functional.interpolate(z[:, :3], scale_factor=4)
                return y, y

        model.encoder, model.decoder = Pooling(), Spreading()
        found = equivariance_error(model, x)
        assert found["equivariance_error"] < 1e-6
        assert found["equivariance_mse"] == pytest.approx(found["mse"], rel=1e-5)
        assert dihedral(x, torch.full((4,), 5)).shape == x.shape
