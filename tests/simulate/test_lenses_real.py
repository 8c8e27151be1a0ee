"""Lenses with ``compat`` against arrays that the authors' own simulator made, where they are at hand (GALDIFF_DATA)."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import least_squares

from galdiff.data import DeepLenseDataset
from galdiff.simulate.lens_light import Galaxy, Source, blur_and_bin, pixel_grid, trace
from galdiff.simulate.lenses import CLASSES, simulate_lenses
from galdiff.simulate.lensing import distances, restated
from galdiff.simulate.telescopes import TELESCOPES

ALPHA = 0.01
SIMULATED = {"I": 48, "II": 200}  # lenses a class


def figures(images, scale):
    """Ring radius [arcsec], log flux, shares of the light by radius, log power of the image by frequency."""
    size = images.shape[-1]
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * scale
    r = np.hypot(x, y)
    flux = images.sum((1, 2))
    found = {"ring": (images * r).sum((1, 2)) / flux, "flux": np.log(flux)}
    for low, high in ((0, 0.8), (0.8, 1.2), (1.2, 1.6), (1.6, 2.5)):
        found[f"light {low}-{high} arcsec"] = images[:, (r >= low) & (r < high)].sum(1) / flux
    power = np.abs(np.fft.fft2(images / flux[:, None, None])) ** 2
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    for low, high in ((0.02, 0.1), (0.1, 0.2), (0.2, 0.35), (0.35, 0.5)):
        found[f"power {low}-{high} cycles/pixel"] = np.log(power[:, (k >= low) & (k < high)].mean(1))
    return found


@pytest.fixture(scope="module")
def generated(real_data):
    return real_data("deeplense_generated")


def arrays(folder, model):
    data = DeepLenseDataset(folder / f"Model_{model}", allow_object_arrays=True)
    images = np.stack([data.load(i)[0] for i in range(len(data))]).astype(np.float64)
    return images, np.asarray(CLASSES)[data.conditions.values["substructure"].numpy()], data


@pytest.mark.parametrize("model", ["I", "II"])
def test_samples_agree_in_ring_flux_profile_and_power(generated, model):
    """Two-sample Kolmogorov-Smirnov, 10 figures of 3 classes, at 0.01 in all (Holm 1979)."""
    images, labels, _ = arrays(generated, model)
    simulated, truth = simulate_lenses(3 * SIMULATED[model], seed=1, model=model, compat=True)
    chances = {}
    for name in CLASSES:
        real = figures(images[labels == name], TELESCOPES[model].scale)
        ours = figures(simulated[truth["class"] == name].astype(np.float64), TELESCOPES[model].scale)
        chances |= {(name, figure): stats.ks_2samp(real[figure], ours[figure]).pvalue for figure in real}
    least = min(chances, key=chances.get)
    assert chances[least] > ALPHA / len(chances), (least, chances[least])


def test_images_are_integers_where_theirs_are(generated):
    path = next((generated / "Model_I" / "cdm").glob("*.npy"))
    assert np.load(path).dtype == simulate_lenses(1, seed=0, compat=True)[0].dtype


def test_masses_of_axions_are_log_uniform_as_ours(generated):
    _, _, data = arrays(generated, "II")
    known = data.conditions.masks["log10_mass"].numpy()
    assert known.sum() == 40
    assert stats.kstest(data.conditions.values["log10_mass"].numpy()[known], stats.uniform(-24, 2).cdf).pvalue > ALPHA


def test_a_noiseless_array_is_reproduced_pixel_by_pixel(generated):
    """Without substructure and noise, all that is unknown is where the source is."""
    images, labels, _ = arrays(generated, "II")
    telescope, strength = TELESCOPES["II"], restated()
    galaxy = Galaxy(distances(compat=True).einstein_radius(1e12))
    source = Source(compat=True).with_flux(telescope.rate(20.0))
    x, y = pixel_grid(telescope.size, telescope.scale)

    def model(place):
        light = trace(x, y, galaxy, source, torch.from_numpy(place)[None], strength=strength)
        return 2 * telescope.scale**2 * blur_and_bin(light, telescope.fwhm / telescope.scale)[0].numpy()

    def residual(place, image):
        return (model(place) - image).ravel()

    starts = [np.array([sx, sy]) for sx in (-0.2, 0.2) for sy in (-0.2, 0.2)]
    for image in images[labels == "no_sub"][:8]:
        nearest = starts[np.argmin([np.abs(residual(place, image)).sum() for place in starts])]
        fit = least_squares(residual, nearest, args=(image,))
        assert np.abs(fit.x).max() < 0.35
        assert np.abs(fit.fun).max() < 1e-5 * image.max()
