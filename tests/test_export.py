"""Samples written as FITS and read back, and the units of a model trained on FITS stamps."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

import galdiff
from galdiff import FITSDataset, LatentDiffusion, cli
from galdiff.errors import CatalogFileError, GaldiffError, ResourceError
from galdiff.imageformat import ImageFormat

CALIBRATION = {"zero_point": [22.5, 22.5], "psf_fwhm": [1.2, 0.9], "pixel_scale": 0.4}


def batch(n=4, unit="nanomaggy", **attrs):
    rng = np.random.default_rng(0)
    coords = {
        "band": ["g", "r"],
        "seed": ("sample", np.arange(7, 7 + n)),
        "morphology": ("sample", np.array(["lens", "", "nolens", "lens"][:n])),
        "redshift": ("sample", np.array([0.1, np.nan, 0.3, 0.4][:n], np.float32)),
    }
    pixels = rng.normal(0, 1e-11, (n, 2, 12, 12)).astype(np.float32)
    attrs = {"units": unit, "steps": 18, "sampler": "heun", **attrs}
    return xr.DataArray(pixels, dims=("sample", "band", "y", "x"), coords=coords, attrs=attrs)


class TestWrite:
    def test_it_reads_back_as_it_was(self, tmp_path):
        images = batch(**CALIBRATION)
        folder = images.galdiff.to_fits(tmp_path / "drawn")
        d = FITSDataset(
            folder, table="catalog.fits", images="images", label="morphology", scalars=["redshift"], size=None
        )
        np.testing.assert_array_equal(np.stack([d.read(i) for i in range(4)]), images)
        assert all(d.mask(i).all() for i in range(4))
        assert (d.bands, d.unit, d.zero_point, d.psf_fwhm) == (("g", "r"), "nanomaggy", (22.5, 22.5), (1.2, 0.9))
        assert d.pixel_scale == pytest.approx(0.4)
        assert d.ids.tolist() == [f"sample-{k}" for k in (7, 8, 9, 10)]
        assert d.table["seed"].tolist() == [7, 8, 9, 10]
        assert d.conditions.masks["morphology"].tolist() == d.conditions.masks["redshift"].tolist() == [1, 0, 1, 1]
        assert d.schema.fields[0].classes == ("lens", "nolens")
        assert d.conditions.values["morphology"][[0, 2, 3]].tolist() == [0, 1, 0]

    def test_headers(self, tmp_path):
        images = batch(**{**CALIBRATION, "zero_point": [25.0, 26.5]})
        galdiff.write_fits(images, tmp_path / "drawn")
        header = fits.getheader(tmp_path / "drawn" / "images" / "sample-7.fits")
        assert (header["BUNIT"], header["BAND0"], header["MAGZERO1"]) == ("nanomaggy", "g", 26.5)
        assert (header["CDELT1"], header["CUNIT1"], header["CTYPE1"]) == (0.4, "arcsec", "LINEAR")
        assert (header["GALDIFF SEED"], header["GALDIFF MORPHOLOGY"], header["GALDIFF SAMPLER"]) == (7, "lens", "heun")
        unknown = fits.getheader(tmp_path / "drawn" / "images" / "sample-8.fits")
        assert not {"GALDIFF MORPHOLOGY", "GALDIFF REDSHIFT"} & set(unknown)
        table = Table.read(tmp_path / "drawn" / "catalog.fits")
        assert table.colnames == ["id", "file", "seed", "morphology", "redshift"]
        assert all((tmp_path / "drawn" / name).is_file() for name in table["file"])
        for path in (tmp_path / "drawn").rglob("*.fits"):
            with fits.open(path, checksum=True) as opened:  # warns where a sum is wrong
                opened.verify("exception")

    def test_names_that_fits_has_not(self, tmp_path):
        images = batch().assign_coords(δ=("sample", np.arange(4)), naxis=("sample", np.full(4, 3)))
        galdiff.write_fits(images, tmp_path / "drawn")
        d = FITSDataset(tmp_path / "drawn", table="catalog.fits", images="images", size=None)
        np.testing.assert_array_equal(d.read(3), images[3])
        assert (d.zero_point, d.pixel_scale) == (None, None)

    def test_display_units_are_never_called_flux(self, tmp_path):
        galdiff.write_fits(batch(unit="display"), tmp_path / "drawn")
        header = fits.getheader(tmp_path / "drawn" / "images" / "sample-7.fits")
        assert "no flux" in header.comments["BUNIT"]
        assert FITSDataset(tmp_path / "drawn" / "images").unit == "display"

    def test_equal_seeds_are_numbered(self, tmp_path):
        images = batch().assign_coords(seed=("sample", np.zeros(4, int)))
        galdiff.write_fits(images, tmp_path / "drawn")
        assert len(list((tmp_path / "drawn" / "images").iterdir())) == 4

    def test_mistakes(self, tmp_path):
        galdiff.write_fits(batch(), tmp_path / "drawn")
        with pytest.raises(ResourceError, match="is there already"):
            galdiff.write_fits(batch(), tmp_path / "drawn")
        with pytest.raises(GaldiffError, match="the axes are"):
            galdiff.write_fits(batch()[0], tmp_path / "other")
        (tmp_path / "file").write_text("")
        with pytest.raises(ResourceError, match="cannot write: Not a directory"):
            galdiff.write_fits(batch(), tmp_path / "file" / "drawn")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn", "file"]


CATALOG = """
name: lenses
data:
  kind: fits
  root: {root}
  files: {{g: "{{label}}/g/{{id}}.fits", r: "{{label}}/r/{{id}}.fits"}}
  size: 16
  psf_fwhm: 0.9
autoencoder: {{images: 320, batch: 16, factor: 4, width: 16, blocks: 1, warmup_images: 64, plot_every: 320}}
denoiser:
  images: 160
  backbone: {{kind: unet, widths: [16]}}
  warmup_images: 64
  plot_every: 160
sampling: {{n: 8, steps: 2, asks: {{lenses: {{morphology: lens}}}}}}
"""


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    """Eighty faint stamps of 1e-11, as in the lens-finding challenge, a NaN here and there."""
    root, rng = tmp_path_factory.mktemp("stamps"), np.random.default_rng(1)
    y, x = np.mgrid[:24, :24] - 11.5
    cards = {"BUNIT": "Jy", "MAGZERO": 8.9, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 12.5, "CRPIX2": 12.5}
    cards |= {"CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}
    for i in range(80):
        label = "lens" if i % 2 else "nolens"
        light = np.exp(-np.hypot(x, y) / 3) + (i % 2) * np.exp(-((np.hypot(x, y) - 7) ** 2) / 4)
        for band, factor in (("g", 1.0), ("r", 2.0)):
            image = (1e-11 * (factor * light + rng.normal(0, 0.05, light.shape))).astype(np.float32)
            image[i % 24, 0] = np.nan
            path = root / label / band / f"{i}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            fits.writeto(path, image, fits.Header(cards))
    return root


@pytest.fixture(scope="module")
def run(stamps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lenses.yaml").write_text(CATALOG.format(root=stamps))
    stages = ["cutouts", "autoencoder", "latents", "denoiser", "samples"]
    return galdiff.train(folder / "lenses.yaml", out=folder, quiet=True, device="cpu", stages=stages)


class TestPhysicalUnits:
    def test_samples_have_the_files_unit(self, run):
        images = LatentDiffusion.load(run, device="cpu").sample(3, units="physical", morphology="lens", seed=2)
        assert images.attrs["units"] == "Jy"
        assert images.attrs["zero_point"] == [8.9, 8.9]
        assert images.attrs["psf_fwhm"] == [0.9, 0.9]
        assert images.attrs["pixel_scale"] == pytest.approx(0.3)
        assert 1e-12 < float(np.abs(images).max()) < 1e-9

    def test_stretched_is_what_the_network_sees(self, run):
        model = LatentDiffusion.load(run, device="cpu")
        x, images = model.sample(2, units="stretched"), model.sample(2)
        assert x.attrs["units"] == "stretched"
        assert "zero_point" not in x.attrs
        undone = model.model.format.stretch.inverse(torch.from_numpy(x.to_numpy()))
        np.testing.assert_array_equal(undone.numpy(), images)
        with pytest.raises(GaldiffError, match=r"unknown units 'flux'\. Known: physical, stretched"):
            model.sample(1, units="flux")

    def test_a_saved_model_keeps_them_and_one_of_before_loads(self, run, tmp_path):
        model = LatentDiffusion.load(run, device="cpu")
        model.save(tmp_path / "model")
        again = LatentDiffusion.load(tmp_path / "model", device="cpu")
        assert again.model.format.to_dict() == model.model.format.to_dict()
        old = {k: v for k, v in model.model.format.to_dict().items() if k not in CALIBRATION}
        assert ImageFormat.from_dict(old).calibration() == {}
        path = tmp_path / "model" / "denoiser" / "spec.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": old}))
        images = LatentDiffusion.load(tmp_path / "model", device="cpu").sample(1, units="physical")
        assert (images.attrs["units"], "zero_point" in images.attrs) == ("Jy", False)

    def test_the_command_writes_stamps_that_read_back(self, run, tmp_path):
        out = tmp_path / "lenses.fits"
        arguments = ["sample", str(run), "-n", "3", "--condition", "morphology=lens", "-o", str(out), "--device", "cpu"]
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        d = FITSDataset(out, table="catalog.fits", images="images", label="morphology", size=None)
        images = LatentDiffusion.load(run, device="cpu").sample(3, morphology="lens")
        np.testing.assert_array_equal(np.stack([d.read(i) for i in range(3)]), images)
        assert (d.unit, d.zero_point, d.table["morphology"].tolist()) == ("Jy", (8.9, 8.9), ["lens"] * 3)
        assert d.pixel_scale == pytest.approx(0.3)


class TestCatalogFile:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"data.mosaic": "m.fits"}, "data.table"),
            ({"data.x": "px"}, "data.y"),
            ({"sampling.asks": {"a": {"morpho": "lens"}}}, "did you mean 'morphology'"),
            ({"data.max_invalid": 2}, "less than or equal to 1"),
            ({"data.stretch": "lupton"}, "data.stretch"),
        ],
        ids=str,
    )
    def test_mistakes(self, stamps, tmp_path, change, words):
        (tmp_path / "c.yaml").write_text(CATALOG.format(root=stamps))
        with pytest.raises(CatalogFileError, match=words):
            galdiff.config.load(tmp_path / "c.yaml", change)
