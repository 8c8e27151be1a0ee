"""`FITSDataset`: layouts, masks, headers and mosaics; astropy's own cutouts and coordinates are the oracle."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from galdiff.data import Asinh, FITSDataset, Linear
from galdiff.errors import DataError

RNG = np.random.default_rng(0)


def tan(shape=(20, 20), scale=0.2, ra=150.0, dec=2.0):
    """A header with a tangential projection about the image's center, ``scale`` arcsec a pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs.to_header()


def write(path, data, header=None, **cards):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header() if header is None else header.copy()
    header.update(cards)
    fits.writeto(path, data, header)
    return data


@pytest.fixture
def cubes(tmp_path):
    """Six cubes of three bands in two class folders."""
    data = {}
    for i in range(6):
        label = "lens" if i % 2 else "nolens"
        data[f"obj.{i}"] = write(
            tmp_path / label / f"obj.{i}.fits",
            RNG.normal(0, 1, (3, 20, 20)).astype(np.float32),
            tan(),
            BUNIT="nanomaggy",
            MAGZERO=22.5,
            BAND0="g",
            BAND1="r",
            BAND2="z",
        )
    return tmp_path, data


class TestLayouts:
    def test_cubes_in_class_folders(self, cubes):
        root, data = cubes
        d = FITSDataset(root, size=None)
        assert d.ids.tolist() == sorted(data)
        assert (d.bands, d.unit, d.size, d.storage_dtype) == (("g", "r", "z"), "nanomaggy", 20, "float32")
        assert d.schema.fields[0].classes == ("lens", "nolens")
        assert d.conditions.values["morphology"].tolist() == [1, 0] * 3
        for i, key in enumerate(d.ids):
            np.testing.assert_array_equal(d.read(i), data[key])
        assert (d.zero_point, d.psf_fwhm) == ((22.5,) * 3, None)
        assert d.pixel_scale == pytest.approx(0.2)

    @pytest.mark.parametrize(
        ("files", "name"),
        [
            ({"g": "{id}_g.fits", "r": "{id}_r.fits"}, "{id}_{band}.fits"),
            ({"g": "g/{id}.fits", "r": "r/{id}.fits"}, "{band}/{id}.fits"),
            ({"g": "{label}/G/im-*-{id}.fits", "r": "{label}/R/im-*-{id}.fits"}, "spiral/{up}/im-{band}-{id}.fits"),
            ({"g": "**/{id}.g.fits", "r": "**/{id}.r.fits"}, "a/b{id}/{id}.{band}.fits"),
        ],
    )
    def test_one_file_a_band(self, tmp_path, files, name):
        data = RNG.normal(size=(3, 2, 8, 8)).astype(np.float32)
        for i in range(3):
            for k, band in enumerate("gr"):
                write(tmp_path / name.format(id=100 + i, band=band, up=band.upper()), data[i, k])
        d = FITSDataset(tmp_path, files=files, size=None)
        assert d.ids.tolist() == ["100", "101", "102"]
        assert d.bands == ("g", "r")
        np.testing.assert_array_equal(np.stack([d.read(i) for i in range(3)]), data)
        assert ("morphology" in d.conditions.values) == ("{label}" in files["g"])

    def test_a_band_that_is_missing(self, tmp_path):
        for name in ("1_g", "1_r", "2_g"):
            write(tmp_path / f"{name}.fits", np.ones((4, 4), np.float32))
        files = {"g": "{id}_g.fits", "r": "{id}_r.fits"}
        with pytest.raises(DataError, match=r"first is '2': no file of band r"):
            FITSDataset(tmp_path, files=files)
        d = FITSDataset(tmp_path, files=files, on_bad="skip", size=None)
        assert (d.ids.tolist(), d.skipped) == (["1"], [("2", "no file of band r")])

    @pytest.mark.parametrize("hdu", [["SCI_G", "SCI_R"], [1, 3]])
    def test_extensions_as_bands_with_a_mask(self, tmp_path, hdu):
        g, r = RNG.normal(size=(2, 8, 8)).astype(np.float32)
        flags = np.zeros((8, 8), np.int16)
        flags[2, 3] = 4
        parts = [fits.ImageHDU(g, name="SCI_G"), fits.ImageHDU(flags, name="DQ"), fits.ImageHDU(r, name="SCI_R")]
        fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(tmp_path / "a.fits")
        d = FITSDataset(tmp_path, hdu=hdu, mask_hdu="DQ", size=None, fill=-7)
        assert d.bands == (("SCI_G", "SCI_R") if isinstance(hdu[0], str) else ("band0", "band1"))
        assert (~d.mask(0)).sum(axis=(1, 2)).tolist() == [1, 1]
        assert (d.read(0)[:, 2, 3] == -7).all()
        np.testing.assert_array_equal(d.read(0)[d.mask(0)], np.stack([g, r])[d.mask(0)])
        plain = FITSDataset(tmp_path, hdu="SCI_R", size=None)
        np.testing.assert_array_equal(plain.read(0)[0], r)
        np.testing.assert_array_equal(FITSDataset(tmp_path, size=None).read(0)[0], g)  # the first that is an image

    @pytest.mark.parametrize("suffix", ["csv", "parquet", "fits"])
    def test_a_table_of_labels_and_numbers(self, cubes, suffix):
        root, _ = cubes
        frame = pd.DataFrame(
            {
                "name": [f"obj.{i}" for i in (3, 1, 0, 2)],
                "kind": ["b", "a", "", "a"],
                "redshift": [0.1, 0.2, np.nan, 0.3],
            }
        )
        path = root / f"table.{suffix}"
        if suffix == "csv":
            frame.to_csv(path, index=False)
        elif suffix == "parquet":
            frame.to_parquet(path)
        else:
            Table.from_pandas(frame).write(path)
        d = FITSDataset(root, table=path.name, id="name", label="kind", scalars=["redshift"], name="type", size=None)
        assert d.ids.tolist() == frame["name"].tolist()
        assert [f.name for f in d.schema.fields] == ["type", "redshift"]
        assert d.schema.fields[0].classes == ("a", "b")
        assert d.conditions.masks["type"].tolist() == d.conditions.masks["redshift"].tolist() == [1, 1, 0, 1]
        assert d.conditions.values["type"][d.conditions.masks["type"]].tolist() == [1, 0, 0]
        assert (d.schema.fields[1].mean, d.schema.fields[1].std) == pytest.approx((0.2, 0.2 / 6**0.5))
        item = FITSDataset(root, table=path.name, id="name", scalars=["redshift"], stretch=Linear(0, 1), size=10)[0]
        assert set(item) == {"image", "id", "mask", "redshift", "redshift_mask"}
        assert (item["image"].shape, item["mask"].dtype) == ((3, 10, 10), torch.bool)

    def test_a_row_without_a_file(self, cubes):
        root, _ = cubes
        pd.DataFrame({"id": ["obj.1", "obj.77"]}).to_csv(root / "table.csv", index=False)
        with pytest.raises(DataError, match=r"the first is 'obj.77': no file"):
            FITSDataset(root, table="table.csv")
        assert FITSDataset(root, table="table.csv", on_bad="skip").ids.tolist() == ["obj.1"]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"files": "{label}.fits"}, r"should name \{id\} once"),
            ({"files": "{id}_{x}.fits"}, r"should name \{id\} once"),
            ({"files": "nothing/{id}.fits"}, "there is no file like"),
            ({"images": "nowhere"}, "images folder is missing"),
            ({"hdu": "SCI"}, "there is no extension 'SCI'. The file has 0 PRIMARY$"),
            ({"hdu": 4}, "there is no extension 4. The file has 0 PRIMARY$"),
            ({"bands": ["g", "r"]}, "has 3 bands, not 2"),
            ({"zero_point": {"u": 3.0}}, "zero_point is given for u, which is no band"),
            ({"mosaic": "x.fits"}, "a mosaic needs a table"),
            ({"scalars": ["z"]}, "there is no column 'z'"),
            ({"files": {"a": "lens/{id}.fits", "b": "*/{id}.fits"}}, "objects cannot be read"),
        ],
        ids=str,
    )
    def test_mistakes(self, cubes, options, words):
        with pytest.raises(DataError, match=words):
            FITSDataset(cubes[0], **options)

    def test_two_files_of_one_object(self, cubes):
        root, data = cubes
        write(root / "lens" / "obj.0.fits.gz", data["obj.0"])
        with pytest.raises(DataError, match=r"two files are of 'obj.0'"):
            FITSDataset(root)

    def test_its_fingerprint_is_json_and_knows_the_files(self, cubes):
        root, data = cubes
        one = FITSDataset(root)
        assert json.loads(json.dumps(one.fingerprint())) == json.loads(json.dumps(FITSDataset(root).fingerprint()))
        write(root / "lens" / "obj.9.fits", data["obj.1"], tan(), BUNIT="nanomaggy", MAGZERO=22.5)
        assert FITSDataset(root, bands=["g", "r", "z"]).fingerprint() != one.fingerprint()


class TestMasks:
    def stamp(self, tmp_path, bad, **options):
        data = np.ones((2, 16, 16), np.float32)
        data[bad] = np.nan
        write(tmp_path / "a.fits", data)
        return FITSDataset(tmp_path, **options)

    def test_invalid_pixels_are_filled_before_resizing_and_marked_after(self, tmp_path):
        d = self.stamp(tmp_path, np.s_[0, 4:6, 8:10], size=8)
        image, mask = d.read(0), d.mask(0)
        assert np.isfinite(image).all()
        assert image[0].mean() == pytest.approx(1 - 4 / 256, rel=1e-5)  # no light was invented
        assert mask[1].all()
        np.testing.assert_allclose(image[mask], 1, rtol=1e-5)  # every pixel that is valid saw only valid ones
        assert not mask[0, 2, 4]
        assert 1 <= (~mask).sum() <= 9

    def test_fill(self, tmp_path):
        d = self.stamp(tmp_path, np.s_[0, 4:6, 8:10], size=8, fill=1.0)
        np.testing.assert_allclose(d.read(0), 1, rtol=1e-5)
        assert not d.mask(0).all()

    def test_the_crop_comes_first(self, tmp_path):
        d = self.stamp(tmp_path, np.s_[:, :2], size=None, crop=0.5)
        assert d.mask(0).all()

    def test_too_many_invalid_pixels(self, tmp_path):
        d = self.stamp(tmp_path, np.s_[1, :4])
        with pytest.raises(DataError, match=r"25.0% of the pixels are invalid, over 10.0%"):
            d.read(0)
        d = FITSDataset(tmp_path, max_invalid=0.3, size=None)
        assert d.mask(0).mean() == pytest.approx(1 - 0.25 / 2)


class TestHeaders:
    @pytest.mark.parametrize(("size", "crop"), [(None, 1.0), (20, 1.0), (10, 1.0), (32, 1.0), (None, 0.5), (7, 0.6)])
    def test_coordinates_follow_the_geometry(self, cubes, size, crop):
        root, _ = cubes
        d = FITSDataset(root, size=size, crop=crop)
        header, side = d.header(2), d.size
        middle = header.wcs.pixel_to_world_values((side - 1) / 2, (side - 1) / 2)
        np.testing.assert_allclose(middle, [150, 2], atol=1e-9)
        kept = {1.0: 20, 0.5: 10, 0.6: 12}[crop]
        assert header.pixel_scale == pytest.approx(0.2 * kept / side)
        # A corner of the image lies where it lay.
        corner = header.wcs.pixel_to_world(-0.5, -0.5)
        before = WCS(tan()).pixel_to_world((20 - kept) / 2 - 0.5, (20 - kept) / 2 - 0.5)
        assert corner.separation(before).arcsec < 1e-6
        assert d.pixel_scale == pytest.approx(header.pixel_scale)

    @pytest.mark.parametrize("form", ["cdelt", "cd"])
    def test_either_form_of_the_matrix(self, tmp_path, form):
        header = tan()
        if form == "cd":
            scale = header["CDELT2"]
            for key in ("CDELT1", "CDELT2"):
                del header[key]
            header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -scale, 0.0, 0.0, scale
        write(tmp_path / "a.fits", np.ones((20, 20), np.float32), header)
        d = FITSDataset(tmp_path, size=5)
        assert d.header(0).pixel_scale == pytest.approx(0.8)
        wcs = d.header(0).wcs
        assert wcs.pixel_to_world(0, 0).separation(wcs.pixel_to_world(0, 1)).arcsec == pytest.approx(0.8)

    def test_what_is_given_wins(self, cubes):
        root, _ = cubes
        own = {"unit": "mJy", "zero_point": {"g": 25.0, "r": 26.0, "z": 27.0}, "psf_fwhm": 1.1, "pixel_scale": 0.5}
        d = FITSDataset(root, size=10, **own)
        assert (d.unit, d.zero_point, d.psf_fwhm) == ("mJy", (25.0, 26.0, 27.0), (1.1,) * 3)
        assert d.header(0).pixel_scale == d.pixel_scale == 1.0
        partly = FITSDataset(root, zero_point={"g": 25.0})
        assert (partly.header(0).zero_point, partly.zero_point) == ((25.0, None, None), None)

    def test_a_column_of_widths(self, cubes):
        root, _ = cubes
        pd.DataFrame({"id": [f"obj.{i}" for i in range(3)], "seeing": [1.0, 2.0, np.nan]}).to_csv(root / "t.csv")
        d = FITSDataset(root, table="t.csv", psf_fwhm="seeing")
        assert [d.header(i).psf_fwhm[0] for i in range(3)] == [1.0, 2.0, None]
        assert d.psf_fwhm == (1.5,) * 3

    def test_numbers_of_bands_in_a_cube(self, tmp_path):
        cards = {"MAGZERO0": 25.0, "MAGZERO1": 26.0, "SEEING": "1.2", "PIXSCALE": 0.3, "ZP": 1.0}
        write(tmp_path / "a.fits", np.ones((2, 4, 4), np.float32), **cards)
        header = FITSDataset(tmp_path, size=None).header(0)
        assert (header.zero_point, header.psf_fwhm, header.pixel_scale) == ((25.0, 26.0), (1.2, 1.2), 0.3)
        assert (header.wcs, header.unit) == (None, "")

    @pytest.mark.parametrize(("key", "what"), [("BUNIT", "unit"), ("MAGZERO", "zero point")])
    def test_files_of_different_units_are_both_named(self, cubes, key, what):
        root, data = cubes
        cards = {"BUNIT": "nanomaggy", "MAGZERO": 22.5, "BAND0": "g", "BAND1": "r", "BAND2": "z"}
        cards[key] = {"BUNIT": "mJy", "MAGZERO": 23.9}[key]
        write(root / "odd.fits", data["obj.1"], tan(), **cards)
        d = FITSDataset(root)
        with pytest.raises(DataError, match=what) as caught:
            d.read(len(d) - 1)
        assert all(name in str(caught.value) for name in ("odd.fits", "obj.0.fits"))
        assert any("odd.fits" in problem for problem in d.check())
        given = {"unit": "nanomaggy", "zero_point": 22.5}
        assert FITSDataset(root, **given).read(len(d) - 1).shape == (3, 64, 64)

    def test_bands_of_different_units(self, tmp_path):
        write(tmp_path / "1_g.fits", np.ones((4, 4)), BUNIT="Jy")
        write(tmp_path / "1_r.fits", np.ones((4, 4)), BUNIT="mJy")
        with pytest.raises(DataError, match="the bands differ in unit: 'Jy', 'mJy'"):
            FITSDataset(tmp_path, files={"g": "{id}_g.fits", "r": "{id}_r.fits"})


@pytest.fixture
def field(tmp_path):
    """Two bands of a field on one grid, r tile-compressed, and a table of positions."""
    g, r = RNG.normal(0, 1, (2, 60, 90)).astype(np.float32)
    g[10, 12] = np.nan
    header = tan((60, 90))
    write(tmp_path / "field_g.fits", g, header, BUNIT="nJy")
    card = fits.CompImageHDU(r, header, compression_type="GZIP_1", quantize_level=0)
    card.header["BUNIT"] = "nJy"
    fits.HDUList([fits.PrimaryHDU(), card]).writeto(tmp_path / "field_r.fits")
    x, y = np.array([12.2, 45.0, 88.6, 0.3]), np.array([11.1, 30.4, 58.9, 40.0])
    sky = WCS(header).pixel_to_world(x, y)
    table = pd.DataFrame({"id": range(4), "ra": sky.ra.deg, "dec": sky.dec.deg, "px": x, "py": y})
    table.to_csv(tmp_path / "positions.csv", index=False)
    return tmp_path, np.stack([g, r]), WCS(header), table


class TestMosaics:
    @pytest.mark.parametrize("side", [8, 9])
    @pytest.mark.parametrize("by", ["sky", "pixels"])
    def test_cutouts_are_those_of_astropy(self, field, side, by):
        root, images, wcs, table = field
        where = {} if by == "sky" else {"x": "px", "y": "py"}
        d = FITSDataset(
            root, table="positions.csv", mosaic="field_{band}.fits", bands=["g", "r"], side=side, size=None,
            max_invalid=0.9, fill=-99, **where,
        )  # fmt: skip
        assert (d.unit, d.bands, len(d)) == ("nJy", ("g", "r"), 4)
        for i, row in table.iterrows():
            for k in range(2):
                cut = Cutout2D(images[k], (row.px, row.py), side, wcs=wcs, mode="partial", fill_value=np.nan)
                np.testing.assert_array_equal(d.mask(i)[k], np.isfinite(cut.data))
                np.testing.assert_array_equal(d.read(i)[k], np.where(np.isfinite(cut.data), cut.data, -99))
            found = d.header(i).wcs.pixel_to_world(2, 3)
            assert found.separation(cut.wcs.pixel_to_world(2, 3)).arcsec < 1e-6

    def test_objects_outside_are_bad_rows(self, field):
        root, _, _, table = field
        far = pd.DataFrame({"id": [7, 8], "ra": [150.5, np.nan], "dec": [2.0, 2.0]})
        pd.concat([table, far]).to_csv(root / "more.csv", index=False)
        options = {"table": "more.csv", "mosaic": "field_g.fits", "side": 8}
        with pytest.raises(DataError, match="2 objects cannot be read, the first is '7': lies outside the mosaic"):
            FITSDataset(root, **options)
        d = FITSDataset(root, **options, on_bad="skip")
        assert (d.ids.tolist(), [name for name, _ in d.skipped]) == ([0, 1, 2, 3], ["7", "8"])

    def test_tiles_named_by_a_column(self, field):
        root, images, _, table = field
        (root / "t1").mkdir()
        (root / "t2").mkdir()
        write(root / "t1" / "im.fits", images[1])
        write(root / "t2" / "im.fits", images[1] + 100)
        table.assign(tile=["t1", "t2", "t1", "t2"]).to_csv(root / "tiles.csv", index=False)
        d = FITSDataset(root, table="tiles.csv", mosaic="{tile}/im.fits", x="px", y="py", side=1, size=None)
        assert [d.read(i).item() > 50 for i in range(4)] == [False, True, False, True]

    def test_bands_of_other_pixels_are_refused(self, field):
        root, images, _, _ = field
        write(root / "field_z.fits", images[0][::2, ::2].copy(), tan((30, 45), scale=0.4), BUNIT="nJy")
        with pytest.raises(DataError, match=r"field_g\.fits are 0\.2 arcsec wide, of field_z\.fits 0\.4"):
            FITSDataset(root, table="positions.csv", mosaic="field_{band}.fits", bands=["g", "z"], side=8)

    def test_a_mosaic_without_coordinates(self, tmp_path):
        write(tmp_path / "m.fits", np.ones((30, 30), np.float32))
        pd.DataFrame({"id": [1], "ra": [3.0], "dec": [4.0]}).to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(DataError, match="no world coordinates") as caught:
            FITSDataset(tmp_path, table="t.csv", mosaic="m.fits", side=8)
        assert "x and y" in caught.value.remedy

    def test_galactic_coordinates_and_distortion(self, tmp_path):
        header = tan((60, 90))
        header["CTYPE1"], header["CTYPE2"] = "GLON-TAN-SIP", "GLAT-TAN-SIP"
        header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": -1e-4})
        data = write(tmp_path / "m.fits", RNG.normal(size=(60, 90)).astype(np.float32), header)
        wcs = WCS(header)
        sky = wcs.pixel_to_world([20.0, 70.0], [30.0, 15.0]).icrs
        pd.DataFrame({"id": [1, 2], "ra": sky.ra.deg, "dec": sky.dec.deg}).to_csv(tmp_path / "t.csv", index=False)
        d = FITSDataset(tmp_path, table="t.csv", mosaic="m.fits", side=5, size=None)
        np.testing.assert_array_equal(d.read(0)[0], data[28:33, 18:23])
        np.testing.assert_array_equal(d.read(1)[0], data[13:18, 68:73])
        assert d.header(1).wcs.pixel_to_world(2, 2).separation(sky[1]).arcsec < 1e-3
        assert FITSDataset(tmp_path, table="t.csv", mosaic="m.fits", side=5, size=4).header(1).wcs is None


class TestEverywhere:
    def test_threads_and_copies_read_the_same(self, cubes):
        root, data = cubes
        d = pickle.loads(pickle.dumps(FITSDataset(root, size=None)))  # as spawn does
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(d.read, list(range(6)) * 5))
        for i, image in enumerate(found):
            np.testing.assert_array_equal(image, data[d.ids[i % 6]])

    def test_in_workers_of_a_loader(self, cubes):
        d = FITSDataset(cubes[0], size=8, stretch=Asinh([1.0] * 3, [5.0] * 3))
        loader = torch.utils.data.DataLoader(d, batch_size=3, num_workers=1)
        batches = list(loader)
        assert torch.equal(torch.cat([b["image"] for b in batches])[4], d[4]["image"])
        assert torch.cat([b["mask"] for b in batches]).all()


class TestRealFiles:
    def test_jwst(self, real_data):
        d = FITSDataset(real_data("fits") / "jwst", files="{id}_data.fits", size=None)
        assert (len(d), d.size, d.pixel_scale, d.unit) == (13, 209, None, "")
        assert sorted(int((~d.mask(i)).sum()) for i in range(13))[-3:] == [0, 79, 85]

    def test_decals(self, real_data):
        d = FITSDataset(real_data("fits") / "decals", size=64)
        assert d.bands == ("g", "r", "z")
        assert [round(d.header(i).pixel_scale * 64 / side, 3) for i, side in ((0, 509), (1, 162))] == [0.262, 0.262]
        with fits.open(real_data("fits") / "decals" / "example_a.fits") as opened:
            mean = opened[0].data.mean(axis=(1, 2), dtype=float)
        np.testing.assert_allclose(d.read(0).mean(axis=(1, 2), dtype=float), mean, rtol=1e-5)

    def test_lens_finding(self, real_data):
        root = real_data("fits") / "lensfinding"
        space = FITSDataset(root / "space_based")
        assert np.bincount(space.conditions.values["morphology"]).tolist() == [8, 8]
        bands = {band: f"{{label}}/Band{k}/imageSDSS_*-{{id}}.fits" for k, band in ((4, "u"), (3, "g"), (1, "r"))}
        ground = FITSDataset(root / "ground_based", files=bands)
        pixels = np.stack([ground.read(i) for i in range(len(ground))])
        assert pixels.shape == (12, 3, 64, 64)
        stretch = Asinh().fit(pixels)
        x = stretch(pixels)
        assert 0.9 < np.quantile(x, 0.999) < 1.1
        assert np.abs(stretch.inverse(x) - pixels).max() <= 1e-5 * max(np.abs(pixels).max(), max(stretch.softening))

    def test_hsc(self, real_data):
        d = FITSDataset(real_data("fits") / "scarlet", files="Cut_HS{id}.fits", hdu=0, on_bad="skip", bands="grizy")
        assert (d.ids[0], d.bands, d.read(0).shape) == ("C", tuple("grizy"), (5, 64, 64))
        with pytest.raises(DataError, match="has 1 bands, not 5"):
            d.read(1)

    def test_spitzer_as_a_mosaic(self, real_data, tmp_path):
        path = real_data("fits") / "photutils" / "spitzer_example_image.fits"
        sky = SkyCoord([18.23, 18.10], [0.2, 0.16], unit="deg", frame="galactic").icrs
        Table({"id": [1, 2], "ra": sky.ra.deg, "dec": sky.dec.deg}).write(tmp_path / "t.fits")
        d = FITSDataset(tmp_path, table="t.fits", mosaic=str(path), side=64, size=None)
        assert d.unit == "MJy/sr"
        with fits.open(path) as opened:
            data, wcs = opened[0].data, WCS(opened[0].header)
        for i in range(2):
            cut = Cutout2D(data, sky[i].galactic, 64, wcs=wcs)
            np.testing.assert_array_equal(d.read(i)[0], cut.data)

    def test_m51_as_a_mosaic_in_pixels(self, real_data, tmp_path):
        path = real_data("fits") / "photutils" / "M51.fits"
        pd.DataFrame({"id": [1, 2], "x": [256, 0], "y": [256, 511]}).to_csv(tmp_path / "t.csv", index=False)
        d = FITSDataset(tmp_path, table="t.csv", mosaic=str(path), x="x", y="y", side=50, size=None, max_invalid=0.8)
        assert d.read(0).dtype == np.float32
        assert d.mask(1).mean() == pytest.approx(25 * 25 / 2500, abs=0.03)
