"""Decoding, cropping and resizing: what the eye and the photometry rely on."""

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage.transform import downscale_local_mean
from skimage.transform import resize as skimage_resize

from galdiff.data import DeepLenseDataset, ImageFolderDataset, RadiusCrop
from galdiff.data.geometry import center_crop, resize, resize_matrix
from galdiff.data.images import read_image
from galdiff.errors import DataError


@pytest.fixture
def rgb():
    y, x = np.mgrid[:24, :30]
    return np.stack([8 * x, 10 * y, 4 * (x + y)], axis=-1).astype(np.uint8)


class TestReading:
    def test_png_is_exact(self, tmp_path, rgb):
        Image.fromarray(rgb).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, rgb.transpose(2, 0, 1).astype(np.float32) / 255)

    def test_jpeg_is_close(self, tmp_path, rgb):
        Image.fromarray(rgb).save(tmp_path / "a.jpeg", quality=95)
        assert np.abs(read_image(tmp_path / "a.jpeg") - rgb.transpose(2, 0, 1) / 255).mean() < 0.01

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
    def test_other_modes_become_three_bands_or_one(self, tmp_path, rgb, mode):
        Image.fromarray(rgb).convert("RGB").convert(mode if mode != "LA" else "L").convert(mode).save(
            tmp_path / "a.png"
        )
        image = read_image(tmp_path / "a.png")
        grey = read_image(tmp_path / "a.png", mode="L")
        assert image.shape == (3, 24, 30)
        assert grey.shape == (1, 24, 30)
        weighted = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        np.testing.assert_allclose(grey[0], weighted, atol=0.01)
        if mode == "RGBA":
            np.testing.assert_array_equal(image, rgb.transpose(2, 0, 1).astype(np.float32) / 255)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_16_bits_are_not_clipped(self, tmp_path, mode):
        values = np.linspace(0, 65_535, 12 * 12).reshape(12, 12).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "deep.png")
        image = read_image(tmp_path / "deep.png", mode=mode)
        assert image.shape == (len(mode), 12, 12)
        for band in image:
            np.testing.assert_allclose(band, values / 65_535, atol=1e-6)

    def test_exif_turns_it_upright(self, tmp_path, rgb):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
        expected = np.rot90(rgb, -1).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1e-6)

    def test_an_image_by_another_suffix_is_read_by_its_content(self, tmp_path, rgb):
        Image.fromarray(rgb).save(tmp_path / "a.jpg", format="PNG")
        assert read_image(tmp_path / "a.jpg").shape == (3, 24, 30)


def jpeg(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG")
    return buffer.getvalue()


class TestUnreadable:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DataError, match="missing") as caught:
            read_image(tmp_path / "gone.jpg")
        assert caught.value.where == str(tmp_path / "gone.jpg")

    @pytest.mark.parametrize(
        "damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[50:], lambda b: b"GIF89a"]
    )
    def test_a_damaged_file_is_named(self, tmp_path, rgb, damage):
        path = tmp_path / "bad.jpg"
        path.write_bytes(damage(jpeg(rgb)))
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_image(path)
        assert caught.value.where == str(path)

    def test_formats_that_can_do_more_are_not_tried(self, tmp_path, rgb):
        Image.fromarray(rgb).save(tmp_path / "a.png", format="BMP")
        with pytest.raises(DataError):
            read_image(tmp_path / "a.png")

    @pytest.mark.parametrize("side", [9_000, 60_000])
    def test_a_bomb_is_refused_before_it_is_decoded(self, tmp_path, side):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10))
        (tmp_path / "bomb.png").write_bytes(data + chunk(b"IEND", b""))
        with pytest.raises(DataError, match=r"64 million|bomb|exceeds"):
            read_image(tmp_path / "bomb.png")

    @given(st.integers(0, 2**32), st.integers(1, 255))
    def test_a_flipped_byte_gives_an_image_or_a_named_error(self, tmp_path, place, flip):
        data = bytearray(jpeg(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)))
        data[place % len(data)] ^= flip
        path = tmp_path / "fuzzed.jpg"
        path.write_bytes(data)
        with suppress(DataError):
            assert np.isfinite(read_image(path)).all()


class TestCenterCrop:
    def test_stamps_of_sdss(self):
        assert center_crop(np.zeros((3, 423, 423)), 0.5).shape[-1] in (211, 213)
        assert center_crop(np.zeros((3, 424, 424)), 0.5).shape[-1] == 212

    @given(st.integers(1, 500), st.floats(0.001, 1))
    def test_the_center_stays_and_the_size_is_nearest(self, side, fraction):
        position = np.arange(side, dtype=float)
        kept = center_crop(np.broadcast_to(position, (1, side, side)), fraction)
        assert kept.shape[-1] == kept.shape[-2]
        assert kept[0, 0].mean() == (side - 1) / 2  # exactly, never half a pixel off
        assert 1 <= kept.shape[-1] <= side
        assert abs(kept.shape[-1] - side * fraction) <= 1 or kept.shape[-1] == 2 - side % 2

    def test_the_whole(self):
        image = np.random.default_rng(0).random((3, 7, 7))
        assert np.array_equal(center_crop(image, 1.0), image)

    @pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
    def test_impossible_shares_are_refused(self, fraction):
        with pytest.raises(DataError, match="crop"):
            center_crop(np.zeros((1, 8, 8)), fraction)


SIDES = st.integers(2, 60)


def images(side):
    return arrays(np.float32, (2, side, side), elements=st.floats(0, 1, width=32))


class TestResize:
    @given(st.data(), SIDES, SIDES)
    def test_the_mean_is_preserved(self, data, before, after):
        image = data.draw(images(before))
        small = resize(image, after)
        assert small.dtype == np.float32
        np.testing.assert_allclose(
            small.mean(axis=(1, 2), dtype=float), image.mean(axis=(1, 2), dtype=float), atol=1e-6
        )

    @given(st.data(), SIDES, SIDES)
    def test_it_is_equivariant_under_the_dihedral_group(self, data, before, after):
        image = data.draw(images(before))
        for turns in range(4):
            for flip in (False, True):

                def act(x, turns=turns, flip=flip):
                    turned = np.rot90(x, turns, axes=(1, 2))
                    return turned[:, :, ::-1] if flip else turned

                np.testing.assert_allclose(resize(act(image), after), act(resize(image, after)), atol=1e-6)

    @given(SIDES, SIDES, st.floats(-5, 5, width=32))
    def test_a_constant_stays_and_nothing_rings(self, before, after, level):
        assert resize_matrix(before, after).min() >= 0
        constant = np.full((1, before, before), level, np.float32)
        np.testing.assert_allclose(resize(constant, after), level, atol=1e-5)

    @pytest.mark.parametrize(("before", "after"), [(64, 24), (211, 64), (424, 64), (128, 48)])
    def test_a_checkerboard_becomes_grey(self, before, after):
        board = (np.indices((before, before)).sum(axis=0) % 2).astype(np.float32)[None]
        assert np.abs(resize(board, after)[0, 2:-2, 2:-2] - 0.5).max() < 0.02

    def test_a_gaussian_keeps_its_center_and_grows_as_the_kernel_says(self):
        before, after, scale = 211, 64, 211 / 64
        y, x = np.mgrid[:before, :before] - (before - 1) / 2
        star = np.exp(-((x - 8.3) ** 2 + (y + 12.7) ** 2) / 2 / 9**2).astype(np.float32)[None]
        small = resize(star, after)[0].astype(float)
        v, u = np.mgrid[:after, :after] - (after - 1) / 2
        centroid = np.array([(u * small).sum(), (v * small).sum()]) / small.sum()
        np.testing.assert_allclose(centroid, np.array([8.3, -12.7]) / scale, atol=0.01)
        spread = (((u - centroid[0]) ** 2) * small).sum() / small.sum()
        kernel = 1 / 3 - 2 / np.pi**2  # variance of a raised cosine of half width one
        assert spread == pytest.approx((9 / scale) ** 2 + kernel, rel=0.02)

    def test_a_smooth_image_is_what_others_make_of_it(self):
        y, x = np.mgrid[:96, :96] / 96
        image = (0.5 + 0.3 * np.sin(5 * x + 3 * y) + 0.2 * np.cos(7 * y))[None].astype(np.float32)
        other = skimage_resize(image[0], (32, 32), anti_aliasing=True)
        assert np.abs(resize(image, 32)[0] - other)[2:-2, 2:-2].max() < 0.02
        assert np.abs(resize(image, 32)[0] - downscale_local_mean(image[0], (3, 3)))[1:-1, 1:-1].max() < 0.01

    @settings(max_examples=20)
    @given(st.data(), SIDES)
    def test_the_same_size_is_the_same_image(self, data, side):
        image = data.draw(images(side))
        assert np.array_equal(resize(image, side), image)

    def test_an_oblong_is_refused(self):
        with pytest.raises(DataError, match="not square"):
            resize(np.zeros((1, 8, 9), np.float32), 4)


def window_mean(image, side):
    """Mean of the central square, pixels at its border counted by the covered area."""
    weights = []
    for length in image.shape[-2:]:
        edges = np.clip(np.arange(length + 1), (length - side) / 2, (length + side) / 2)
        weights.append(np.diff(edges))
    return np.einsum("bij,i,j->b", image.astype(float), *weights) / side**2


class TestPartsOfPixels:
    @given(st.data(), SIDES, SIDES, SIDES, st.floats(0.1, 1))
    def test_the_mean_of_any_central_square_is_preserved_and_so_is_its_flux(self, data, height, width, size, share):
        image = data.draw(arrays(np.float32, (2, height, width), elements=st.floats(0, 1, width=32)))
        side = max(1.0, share * min(height, width))
        small = resize(image, size, side=side)
        np.testing.assert_allclose(small.mean(axis=(1, 2), dtype=float), window_mean(image, side), atol=1e-6)
        total = resize(image, size, side=side, conserve="flux").sum(axis=(1, 2), dtype=float)
        np.testing.assert_allclose(total, window_mean(image, side) * side**2, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(("before", "after"), [(424, 64), (423, 64), (211, 64), (30, 64), (64, 64), (7, 45)])
    def test_flux_is_the_sum_at_sizes_that_do_not_divide(self, before, after):
        image = np.random.default_rng(0).gamma(0.3, 1e3, (3, before, before)).astype(np.float32)
        sums = resize(image, after, conserve="flux").sum(axis=(1, 2), dtype=float)
        np.testing.assert_allclose(sums, image.sum(axis=(1, 2), dtype=float), rtol=1e-6)

    @pytest.mark.parametrize("side", [100.0, 100.37, 127.5, 163.9])
    def test_the_scale_is_exact_to_parts_of_a_pixel(self, side):
        # A Gaussian of a tenth of the side has a tenth of the new side, whatever the side.
        y, x = np.mgrid[:201, :201] - 100
        image = np.exp(-(x**2 + y**2) / 2 / (0.1 * side) ** 2).astype(np.float32)[None]
        small = resize(image, 64, side=side)[0].astype(float)
        u = np.arange(64) - 31.5
        smoothed = 1 / 3 - 2 / np.pi**2 + (64 / side) ** 2 / 12  # by the kernel and by the pixels of the image
        variance = (small.sum(axis=0) * u**2).sum() / small.sum() - smoothed
        assert np.sqrt(variance) == pytest.approx(6.4, rel=2e-4)

    @pytest.mark.parametrize("side", [0.5, 31.01, float("nan")])
    def test_an_image_smaller_than_the_square_is_refused(self, side):
        with pytest.raises(DataError, match="does not fit the image of 40 x 31"):
            resize(np.zeros((1, 31, 40), np.float32), 8, side=side)


RULE = {"radius": "petroR90_r", "times": 3.0, "pixel_scale": 0.396}


class TestCropByRadius:
    table = "id,petroR90_r\n0,4.0\n1,2.5\n2,\n3,99\n"

    @pytest.fixture
    def folder(self, tmp_path):
        y, x = np.mgrid[:65, :65] - 32
        for i, radius in enumerate((10.0, 6.25, 5.0, 5.0)):
            disk = 200 * np.exp(-(x**2 + y**2) / radius**2)
            Image.fromarray(disk.astype(np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / "t.csv").write_text(self.table)
        return tmp_path

    def data(self, folder, **more):
        return ImageFolderDataset(folder, **{"table": "t.csv", "size": 16, "grey": True, "crop": RULE, **more})

    def test_galaxies_of_any_size_fill_the_same_share(self, folder):
        data = self.data(folder)
        assert data.read(0).shape == (1, 16, 16)
        np.testing.assert_allclose(data.read(0), data.read(1), atol=0.01)
        whole = resize(read_image(folder / "0.png", mode="L"), 16, side=2 * 3 * 4.0 / 0.396)
        np.testing.assert_allclose(data.read(0), whole, atol=1e-6)

    def test_rows_without_a_radius_or_with_too_small_an_image_are_bad_rows(self, folder):
        data = self.data(folder)
        with pytest.raises(DataError, match="petroR90_r is not a positive number") as caught:
            data.read(2)
        assert caught.value.where == "2"
        with pytest.raises(DataError, match=r"a crop of 1500.0 pixels does not fit"):
            data.read(3)
        assert data.check() == ["1 rows have no petroR90_r to crop by, the first is 2"]

    def test_the_rule_is_in_the_fingerprint(self, folder):
        one = self.data(folder).fingerprint()
        assert one["crop"] == RULE
        assert self.data(folder, crop=RadiusCrop("petroR90_r", 2.0, 0.396)).fingerprint() != one

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"crop": {"radius": "petroR50"}}, "no column 'petroR50'"),
            ({"crop": {"radius": "petroR90_r", "times": 0}}, "is none"),
            ({"size": None}, "many sizes"),
            ({"conserve": "flux"}, "display units"),
            ({"conserve": "light"}, "nothing conserves 'light'"),
        ],
    )
    def test_impossible_rules_are_refused_at_once(self, folder, more, words):
        with pytest.raises(DataError, match=words):
            self.data(folder, **more)

    def test_arrays_may_keep_their_flux(self, tmp_path):
        (tmp_path / "no").mkdir()
        image = np.random.default_rng(0).random((30, 30))
        np.save(tmp_path / "no" / "a.npy", image)
        data = DeepLenseDataset(tmp_path, size=13, conserve="flux")
        assert data.read(0).sum(dtype=float) == pytest.approx(image.sum(), rel=1e-6)
        assert data.fingerprint()["conserve"] == "flux"
