"""Figures of what an autoencoder keeps, and the report's curves of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from galdiff.data.stretch import Sqrt
from galdiff.imageformat import ImageFormat
from galdiff.metrics import judge
from galdiff.pipeline.reconstruction import reconstruction_scores
from galdiff.pipeline.scores import write_evaluation
from galdiff.pipeline.sets import Evaluation
from galdiff.report import read_figures, write_report
from galdiff.report.reconstruction import reconstruction_curves


def galaxies(n, bands=2, size=32):
    rng = np.random.default_rng(0)
    r = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2))
    light = rng.uniform(0.3, 0.9, (n, bands, 1, 1)) * np.exp(-r / rng.uniform(1.5, 4, (n, 1, 1, 1)))
    return (light + rng.normal(0.05, 0.005, (n, bands, size, size))).astype(np.float32)


def model(bands=("g", "r"), **more):
    """Make an autoencoder that dims by a tenth and draws noise of 0.01."""

    def reconstruct(pixels, noise=False):
        drawn = 0.01 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)) if noise else 0.0
        return 0.05 + 0.9 * (pixels - 0.05) + drawn

    return SimpleNamespace(format=ImageFormat(bands, 32, "display", Sqrt(1.0), **more), reconstruct=reconstruct)


@pytest.fixture(scope="module")
def scored():
    figures, curves = reconstruction_scores(model(), galaxies(60), seed=0, draws=5)
    return {figure.name: figure for figure in figures}, curves


def test_figures_are_those_of_the_known_change(scored):
    figures, _ = scored
    assert figures["reconstruction_flux_bias"].value == pytest.approx(-2.5 * np.log10(0.9), abs=0.01)
    assert figures["reconstruction_flux_bias"].protocol.endswith("mag")
    assert figures["reconstruction_color_bias"].value == pytest.approx(0, abs=0.02)
    assert figures["reconstruction_residual_power"].value == pytest.approx(0.01, rel=0.01)
    assert all(figure.n == 60 and figure.status == "ok" and figure.floor is None for figure in figures.values())
    assert 0 < figures["reconstruction_psnr"].error < 1
    assert {f"reconstruction_{m}_{p}" for m in ("r50", "gini", "concentration") for p in ("bias", "scatter")} <= set(
        figures
    )


def test_curves_can_be_written_beside_others_and_drawn(scored, tmp_path):
    coords = {"band": np.array(["g", "r"], dtype=object)}
    xr.Dataset({"x": ("band", [1, 2])}, coords).merge(scored[1]).to_zarr(
        tmp_path / "c.zarr", zarr_format=3, consolidated=False
    )
    data = xr.open_zarr(tmp_path / "c.zarr", consolidated=False).load()
    # Noise is in what is shown with it, and not in what is left of the mean image.
    power = {name: data[f"reconstruction_power_{name}"].to_numpy()[:, -3:] for name in ("decoded", "residual")}
    assert (power["decoded"] > 20 * power["residual"]).all()
    svg = reconstruction_curves(data)
    for text in ("half-light radius", "concentration", "spectrum, band r"):
        assert text in svg
    assert reconstruction_curves(xr.Dataset()) == ""


def exact(above=-1.0):
    """Make an autoencoder that gives images back as they are which are brighter than that."""
    same = model(("g",))
    changed = same.reconstruct

    def reconstruct(pixels, noise=False):
        kept = pixels.mean(dim=(1, 2, 3), keepdim=True) > above
        return torch.where(kept, pixels, changed(pixels, noise=noise))

    same.reconstruct = reconstruct
    return same


def test_an_exact_reconstruction_is_said_to_be_one(tmp_path):
    figures, _ = reconstruction_scores(exact(), galaxies(60, 1), seed=0, draws=5)
    by_name = {figure.name: figure for figure in figures}
    psnr = by_name["reconstruction_psnr"]
    assert (psnr.value, psnr.error, psnr.status) == (None, None, "infinite")
    assert psnr.note == "all 60 images come back exactly"
    assert by_name["reconstruction_ssim"].value == 1.0
    assert by_name["reconstruction_residual_power"].value == 0.0
    assert judge([psnr]) == ["open"]
    write_evaluation(tmp_path, Evaluation(figures), start=0.0)
    assert read_figures(tmp_path) == figures
    page = write_report(tmp_path).read_text()
    assert "infinite" in page
    assert "nan" not in page.lower().split("<main>")[1]


def test_images_that_come_back_exactly_do_not_hide_the_others():
    images = galaxies(120, 1)
    level = float(np.median(bright := images.mean(axis=(1, 2, 3))))
    some, none = (
        reconstruction_scores(exact(level), kept, seed=0, draws=5)[0][0] for kept in (images, images[bright <= level])
    )
    assert some.value == pytest.approx(none.value, rel=1e-6)
    assert some.error > 0
    assert (some.note, none.note) == ("without 60 that come back exactly", "")


def test_images_without_light_have_no_residual_power():
    figures, _ = reconstruction_scores(exact(), np.zeros((60, 1, 32, 32), np.float32), seed=0, draws=5)
    assert {figure.name: figure for figure in figures}["reconstruction_residual_power"].status == "undefined"


def test_errors_are_as_free_as_there_are_draws(scored):
    assert {figure.freedom for name, figure in scored[0].items() if figure.error is not None} == {4}


def test_few_images_are_no_figures():
    figures, _ = reconstruction_scores(model(("g",)), galaxies(8, 1), seed=0, draws=2)
    assert not any("color" in figure.name for figure in figures)
    assert all(f.status == "too few" and f.value is None for f in figures if "residual" not in f.name)


def test_magnitudes_have_the_zero_point_of_the_bands():
    plain, calibrated = (
        reconstruction_scores(model(zero_point=zero), galaxies(30), seed=0, draws=2)[1]["reconstruction_bin_magnitude"]
        for zero in (None, (22.5, 22.5))
    )
    np.testing.assert_allclose(calibrated - plain, 22.5)
