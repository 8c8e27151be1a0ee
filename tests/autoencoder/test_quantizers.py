"""Vector and scalar quantization against what is known of them without a network."""

import itertools

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from galdiff.autoencoder import VQAutoencoder
from galdiff.autoencoder.fsq import ScalarQuantizer
from galdiff.autoencoder.vq import VectorQuantizer

YES, NO = torch.ones(()), torch.zeros(())


def as_latents(vectors):
    """Vectors ``(256 n, c)`` as latents ``(n, c, 16, 16)``."""
    return torch.as_tensor(vectors, dtype=torch.float32).reshape(-1, 16, 16, vectors.shape[1]).movedim(-1, 1)


def clusters(count=8, channels=3, size=1024):
    rng = np.random.default_rng(0)
    centers = rng.permutation(np.array(list(itertools.product((-4.0, 0.0, 4.0), repeat=channels))))[:count]
    return centers, centers[rng.integers(count, size=size)] + 0.2 * rng.standard_normal((size, channels))


def follow(quantizer, z, steps, finite=YES):
    for _ in range(steps):
        quantizer.observe(z, quantizer.index(z))
        quantizer.update(finite)


class TestVectors:
    def test_the_nearest_code_is_chosen(self):
        quantizer = VectorQuantizer(4, 50)
        z = torch.randn(3, 4, 5, 7)
        distance = torch.cdist(z.movedim(1, -1).reshape(-1, 4).double(), quantizer.codes.double())
        assert torch.equal(quantizer.index(z).flatten(), distance.argmin(dim=1))
        assert torch.equal(quantizer.index(quantizer(z)), quantizer.index(z))

    def test_the_gradient_passes_unchanged(self):
        quantizer, z = VectorQuantizer(4, 16), torch.randn(2, 4, 5, 5, requires_grad=True)
        y = quantizer(z)
        torch.testing.assert_close(y, quantizer.values(quantizer.index(z)))
        weight = torch.randn_like(y)
        (weight * y.square()).sum().backward()
        torch.testing.assert_close(z.grad, 2 * weight * y.detach())

    def test_codes_converge_to_the_centers_that_k_means_finds(self):
        centers, vectors = clusters()
        start = centers + 0.9
        expected, _ = kmeans2(vectors, start, minit="matrix", iter=50)
        quantizer = VectorQuantizer(3, 8, decay=0.9)
        quantizer.codes.copy_(torch.from_numpy(start))
        quantizer.count.fill_(128)
        quantizer.total.copy_(quantizer.codes * 128)
        follow(quantizer, as_latents(vectors), 150)
        np.testing.assert_allclose(quantizer.codes.numpy(), expected, atol=1e-4)
        counts = np.bincount(kmeans2(vectors, expected, minit="matrix")[1])
        np.testing.assert_allclose(quantizer.count.numpy(), counts, rtol=1e-4)

    def test_dead_codes_are_brought_to_life(self):
        """From codes that are all far away, every cluster is found; none is used by nothing in the end."""
        centers, vectors = clusters()
        quantizer = VectorQuantizer(3, 32, decay=0.95)
        quantizer.codes.add_(1000)
        z = as_latents(vectors)
        assert len(quantizer.index(z).unique()) == 1
        follow(quantizer, z, 100)
        distance = torch.cdist(torch.from_numpy(centers).float(), quantizer.codes)
        assert distance.min(dim=1).values.max() < 0.5
        assert quantizer.figures()["codes_used"] > 0.9
        assert quantizer.figures()["perplexity"] > 16
        error = (quantizer(z) - z).square().mean()
        assert error < 0.2**2

    def test_figures_of_known_counts(self):
        quantizer = VectorQuantizer(2, 8)
        quantizer.count.copy_(torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
        figures = quantizer.figures()
        assert figures["perplexity"].item() == pytest.approx(4.0)
        assert figures["codes_used"].item() == pytest.approx(0.5)

    def test_a_skipped_step_leaves_no_trace(self):
        quantizer, z = VectorQuantizer(3, 8), torch.randn(2, 3, 16, 16)
        follow(quantizer, z, 3)
        before = {k: v.clone() for k, v in quantizer.state_dict().items()}
        for bad in (z, torch.full_like(z, torch.nan), torch.full_like(z, torch.inf)):
            follow(quantizer, bad, 1, NO)
            assert all(torch.equal(v, before[k]) for k, v in quantizer.state_dict().items())
        follow(quantizer, z, 1)
        assert not torch.equal(quantizer.codes, before["codes"])

    def test_the_same_steps_give_the_same_bits_from_a_checkpoint(self):
        z = [torch.randn(2, 3, 16, 16) * scale for scale in (1, 3, 9, 27)]
        whole = VectorQuantizer(3, 64)
        for part in z[:2]:
            follow(whole, part, 1)
        resumed = VectorQuantizer(3, 64)
        resumed.load_state_dict({k: v.clone() for k, v in whole.state_dict().items()})
        torch.randn(7)  # the global generator has no say
        for quantizer in (whole, resumed):
            for part in z[2:]:
                follow(quantizer, part, 1)
        assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())

    def test_without_an_observation_nothing_is_taken_over(self):
        quantizer = VectorQuantizer(3, 8)
        before = quantizer.codes.clone()
        quantizer.update(YES)
        assert torch.equal(quantizer.codes, before)

    def test_commitment_pulls_latents_to_their_codes(self):
        model = VQAutoencoder(1, channels=3, codes=8, factor=4, width=8, commitment=0.5)
        posterior = model.encode(torch.randn(2, 1, 16, 16))
        posterior.mean.retain_grad()
        term, figures = model.regularizer(posterior)
        term.backward()
        gap = posterior.mean - model.quantizer.values(model.quantizer.index(posterior.mean))
        torch.testing.assert_close(posterior.mean.grad, gap.detach() / gap.numel())
        assert term.item() == pytest.approx(0.5 * figures["commitment"].item())
        assert model.quantizer.codes.grad is None


class TestScalars:
    LEVELS = (2, 3, 4, 5)

    def codes(self):
        return torch.tensor(list(itertools.product(*(range(n) for n in self.LEVELS))))[:, :, None, None]

    def test_codes_and_indices_are_one_to_one(self):
        quantizer, level = ScalarQuantizer(self.LEVELS), self.codes()
        index = quantizer.index(level)
        assert sorted(index.flatten().tolist()) == list(range(2 * 3 * 4 * 5))
        assert torch.equal(quantizer.level(index), level)
        assert torch.equal(quantizer.rounded(quantizer.values(level)), level)

    def test_more_codes_than_a_float_can_count(self):
        quantizer = ScalarQuantizer((8,) * 20)
        level = torch.randint(8, (100, 20, 3, 3))
        assert torch.equal(quantizer.level(quantizer.index(level)), level)

    def test_rounding_goes_to_the_nearest_level(self):
        quantizer = ScalarQuantizer(self.LEVELS)
        z = torch.rand(500, 4, 1, 1) * 2.4 - 1.2
        rounded = quantizer(z)
        for channel, n in enumerate(self.LEVELS):
            values = torch.linspace(-1, 1, n)
            nearest = values[(z[:, channel, 0] - values).abs().argmin(dim=1)]
            torch.testing.assert_close(rounded[:, channel, 0, 0], nearest, atol=1e-6, rtol=0)
        torch.testing.assert_close(quantizer(rounded), rounded)

    def test_odd_levels_are_the_papers(self):
        """Mentzer et al. 2023, Section 3.1: the rounding of floor(L / 2) tanh(z)."""
        z = 3 * torch.randn(100, 1, 2, 2)
        torch.testing.assert_close(2 * ScalarQuantizer((5,))(z.tanh()), (2 * z.tanh()).round())

    def test_the_gradient_passes_unchanged(self):
        quantizer, z = ScalarQuantizer(self.LEVELS), (torch.rand(2, 4, 3, 3) * 2 - 1).requires_grad_()
        y = quantizer(z)
        weight = torch.randn_like(y)
        (weight * y.square()).sum().backward()
        torch.testing.assert_close(z.grad, 2 * weight * y.detach())

    def test_latents_of_half_precision_are_the_same_codes(self):
        quantizer, level = ScalarQuantizer((8, 8, 5)), torch.randint(5, (50, 3, 4, 4))
        assert torch.equal(quantizer.rounded(quantizer.values(level).half()), level)

    @pytest.mark.parametrize("levels", [(), (1, 4), (2**32, 2**32)])
    def test_levels_that_make_no_codes(self, levels):
        with pytest.raises(ValueError, match="two or more"):
            ScalarQuantizer(levels)
