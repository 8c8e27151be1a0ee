"""What FITS files in the wild do: each test is named after one such oddity."""

import gzip
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.data import Asinh, FITSDataset
from galdiff.data.fits_files import image_wcs, read_fits
from galdiff.errors import DataError, GaldiffError

RNG = np.random.default_rng(1)


def dataset(folder, data, header=None, *, name="a.fits", **options):
    fits.writeto(folder / name, data, header)
    return FITSDataset(folder, **{"size": None, **options})


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">i4", ">u1", ">i8"])
def test_oddity_big_endian_types(tmp_path, dtype):
    """torch.from_numpy refuses the byte order that every FITS file has."""
    data = RNG.integers(0, 200, (9, 9)).astype(dtype)
    d = dataset(tmp_path, data, stretch=Asinh([1.0], [100.0]))
    image = d.read(0)
    assert image.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(image[0], data)
    assert torch.isfinite(d[0]["image"]).all()


def test_oddity_negative_sky(tmp_path):
    """Nearly half the pixels of a sky-subtracted image are below zero, and stay so."""
    data = RNG.normal(0, 1, (2, 16, 16)).astype(np.float32)
    d = dataset(tmp_path, data, size=8)
    assert d.read(0).min() < 0
    np.testing.assert_allclose(d.read(0).mean(axis=(1, 2)), data.mean(axis=(1, 2)), atol=1e-6)


def test_oddity_nan_pixels(tmp_path):
    data = np.full((16, 16), 3.0)
    data[4, 5], data[9, 9] = np.nan, np.inf
    d = dataset(tmp_path, data)
    assert np.argwhere(~d.mask(0)[0]).tolist() == [[4, 5], [9, 9]]
    assert np.isfinite(d.read(0)).all()


@pytest.mark.parametrize("scale", [1e-11, 1e-30, 1e5, 6.8e3])
def test_oddity_scales_from_1e_11_to_1e5(tmp_path, scale):
    """Float16 would lose them: the cache keeps float32, and the stretch and its inverse hold."""
    data = (scale * RNG.normal(1, 0.2, (3, 16, 16))).astype(np.float32)
    d = dataset(tmp_path, data, size=8)
    assert d.storage_dtype == "float32"
    stretch = d.stretch.fit(d.read(0)[None])
    x = stretch(d.read(0))
    assert np.abs(x).max() < 10
    np.testing.assert_allclose(stretch.inverse(x), d.read(0), rtol=1e-5, atol=1e-5 * min(stretch.softening))


@pytest.mark.parametrize("bands", [3, 5])
def test_oddity_cubes(tmp_path, bands):
    data = RNG.normal(size=(bands, 8, 8))
    d = dataset(tmp_path, data)
    assert d.bands == tuple(f"band{k}" for k in range(bands))
    np.testing.assert_array_equal(d.read(0), data.astype(np.float32))


def test_oddity_four_axes_with_one_of_length_one(tmp_path):
    data = RNG.normal(size=(1, 2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(dataset(tmp_path, data).read(0), data[0])


def test_oddity_no_header(tmp_path):
    """JWST cuts that say nothing but their shape."""
    d = dataset(tmp_path, RNG.normal(size=(9, 9)))
    header = d.header(0)
    assert (d.unit, d.bands, d.zero_point, d.pixel_scale, header.wcs) == ("", ("flux",), None, None, None)
    given = FITSDataset(tmp_path, unit="MJy/sr", zero_point=28.0, pixel_scale=0.03, size=None)
    assert (given.unit, given.zero_point, given.pixel_scale) == ("MJy/sr", (28.0,), 0.03)


@pytest.mark.parametrize("how", ["gz", "fz", "fits with a compressed extension"])
def test_oddity_compressed(tmp_path, how):
    data = RNG.integers(0, 900, (2, 20, 20)).astype(np.int16)
    if how == "gz":
        fits.writeto(tmp_path / "a.fits.gz", data)
    else:
        name = "a.fits.fz" if how == "fz" else "a.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data, compression_type="RICE_1")]).writeto(tmp_path / name)
    d = FITSDataset(tmp_path, files="{id}.fits", size=None)
    assert d.ids.tolist() == ["a"]
    np.testing.assert_array_equal(d.read(0), data)


def test_oddity_scaled_integers_with_blanks(tmp_path):
    """BSCALE, BZERO and BLANK, of whole images and of windows."""
    hdu = fits.PrimaryHDU(np.arange(64, dtype=np.int16).reshape(8, 8))
    hdu.header["BLANK"] = 9
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 100.0
    raw = hdu.data.astype(np.float32)
    with fits.conf.set_temp("enable_uint", False):
        hdu.writeto(tmp_path / "a.fits")
    with open(tmp_path / "a.fits", "r+b") as file:  # astropy writes the scaled values: put the raw ones back
        head = fits.Header.fromfile(tmp_path / "a.fits")
        head["BITPIX"], head["BLANK"], head["BSCALE"], head["BZERO"] = 16, 9, 0.5, 100.0
        file.truncate(0)
        file.write(head.tostring().encode())
        file.write(raw.astype(">i2").tobytes().ljust(2880, b"\0"))
    expected = 100 + 0.5 * raw
    expected[1, 1] = np.nan
    np.testing.assert_array_equal(read_fits(tmp_path / "a.fits").pixels[0], expected)
    window = read_fits(tmp_path / "a.fits", window=(1, 1, 3)).pixels[0]
    np.testing.assert_array_equal(window, expected[:3, :3])
    d = FITSDataset(tmp_path, size=None)
    assert (~d.mask(0)).sum() == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_oddity_unsigned_integers(tmp_path, compressed):
    """FITS has no unsigned 16 bits: BZERO = 32768 stands for them."""
    data = np.array([[0, 1], [40_000, 65_535]], np.uint16).repeat(4, 0).repeat(4, 1)
    if compressed:
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data)]).writeto(tmp_path / "a.fits")
        np.testing.assert_array_equal(FITSDataset(tmp_path, size=None).read(0)[0], data)
    else:
        np.testing.assert_array_equal(dataset(tmp_path, data).read(0)[0], data)


def test_oddity_values_beyond_float32(tmp_path):
    data = np.ones((8, 8))
    data[0, 0] = 1e300
    d = dataset(tmp_path, data)
    assert (~d.mask(0)).sum() == 1


def test_oddity_an_image_behind_an_empty_primary_and_a_table(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.ones(3))])
    image = RNG.normal(size=(8, 8)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(image)]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(FITSDataset(tmp_path, size=None).read(0)[0], image)
    with pytest.raises(DataError, match="is no image"):
        FITSDataset(tmp_path, hdu=1)


def test_oddity_cards_that_are_not_fits(tmp_path):
    """ESO's old cards: astropy remarks on them, in any thread; the pixels are read and no warning is left behind."""
    data = RNG.normal(size=(8, 8)).astype(np.float32)
    fits.writeto(
        tmp_path / "a.fits", data, fits.Header([("OBJECT", "x"), ("FWHM", "nan"), ("ZP", "?"), ("BUNIT", " Jy ")])
    )
    raw = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(raw.replace(b"OBJECT  =", b"ESO-LOG 0"))
    d = FITSDataset(tmp_path, size=None)
    assert (d.unit, d.zero_point, d.psf_fwhm) == ("Jy", None, None)
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(d.read, [0] * 16))
    assert warnings.filters == filters
    assert all(np.array_equal(image[0], data) for image in images)


def test_oddity_coordinates_that_are_none(tmp_path):
    """A MIDAS header: linear axes without a unit."""
    header = fits.Header({"CTYPE1": "", "CTYPE2": "", "CRPIX1": 1.0, "CRVAL1": 1.0, "CDELT1": 1.0, "BUNIT": ""})
    d = dataset(tmp_path, np.ones((8, 8)), header)
    assert (d.header(0).wcs, d.pixel_scale, d.unit) == (None, None, "")
    assert image_wcs(fits.Header({"CTYPE1": "RA---NON", "CTYPE2": "DEC--TAN"})) is None


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.8])
def test_oddity_truncated(tmp_path, name, share):
    data = RNG.normal(size=(60, 60)).astype(np.float32)
    image = fits.CompImageHDU(data, quantize_level=0) if name.endswith("fz") else fits.ImageHDU(data)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    FITSDataset(tmp_path).read(0)
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"a\.fits"):
        FITSDataset(tmp_path).read(0)


def test_oddity_a_zero_point_called_otherwise(tmp_path):
    for i, key in enumerate(("MAGZERO", "MAGZPT", "ZEROPNT", "PHOTZP")):
        fits.writeto(tmp_path / f"{i}.fits", np.ones((4, 4)), fits.Header({key: 25.0}))
    d = FITSDataset(tmp_path, size=None)
    assert d.zero_point == (25.0,)
    assert all(d.read(i).shape == (1, 4, 4) for i in range(4))


def test_oddity_real_headers_with_remarks(real_data):
    """The ESO field has odd cards, scaled integers and a pedestal of 6.8e3."""
    d = FITSDataset(real_data("fits") / "sep", size=64)
    assert 6.5e3 < d.read(0).min() < 7e3 < 1e4 < d.read(0).max()
    assert (d.mask(0).all(), d.storage_dtype) == (True, "float32")


def _sample(kind):
    image = np.random.default_rng(2).normal(5, 1, (2, 12, 12)).astype(np.float32)
    header = fits.Header({"BUNIT": "Jy", "MAGZERO": 22.5, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": 1e-4})
    made = fits.HDUList([fits.PrimaryHDU(image, header)])
    if kind == "int":
        made = fits.HDUList([fits.PrimaryHDU((image * 100).astype(np.int16), header)])
    elif kind == "extension":
        made = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image[0], header, name="SCI")])
    elif kind == "tiles":
        made = fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU((image[0] * 100).astype(np.int16), header)])
    return made


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("samples"), {}
    for kind in ("float", "int", "extension", "tiles"):
        _sample(kind).writeto(folder / f"{kind}.fits")
        found[f"{kind}.fits"] = (folder / f"{kind}.fits").read_bytes()
    found["float.fits.gz"] = gzip.compress(found["float.fits"], mtime=0)
    return found


@pytest.mark.parametrize("name", ["float.fits", "int.fits", "extension.fits", "tiles.fits", "float.fits.gz"])
@settings(max_examples=50)
@given(draw=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, samples, name, draw):
    """Fuzz: truncations and changed bytes, most of them in headers; no other error and no warning comes out."""
    raw = bytearray(samples[name])
    raw = raw[: draw.draw(st.integers(0, len(raw)), label="length")] if draw.draw(st.booleans()) else raw
    for _ in range(draw.draw(st.integers(0, 6))):
        if raw:
            at = draw.draw(st.one_of(st.integers(0, min(len(raw), 5760) - 1), st.integers(0, len(raw) - 1)))
            raw[at] = draw.draw(st.one_of(st.integers(0, 255), st.sampled_from(list(b"0123456789-'=/ TFE"))))
    (tmp_path / name).write_bytes(raw)
    try:
        d = FITSDataset(tmp_path, size=None)
        image, mask = d.read(0), d.mask(0)
        d.header(0)
    except GaldiffError:
        return
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert mask.shape == image.shape
