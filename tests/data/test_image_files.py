"""Images of every kind that is read: not one bit is lost, and what would lose some is refused."""

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from galdiff.data.images import image_type, read_image
from galdiff.errors import DataError

DEEP = np.random.default_rng(0).integers(0, 65_536, (9, 7, 4), dtype=np.uint16)


def png16(path, values, color):
    """A PNG of 16 bits a sample, by the specification alone; rows use every filter but Paeth and average."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = values.astype(">u2").reshape(len(values), -1).view(np.uint8).astype(int)
    wide = 2 * values[0, 0].size
    lines = []
    for y, row in enumerate(rows):
        left = np.concatenate([np.zeros(wide, int), row[:-wide]])
        up = rows[y - 1] if y else np.zeros_like(row)
        kind = y % 3
        lines.append(bytes([kind]) + ((row - (0, left, up)[kind]) % 256).astype(np.uint8).tobytes())
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def bits(path, **more):
    """The file's own numbers, band by band."""
    values = read_image(path, unit="counts", **more)
    assert np.array_equal(values, np.round(values))
    return values.astype(np.uint16)


class TestSixteenBits:
    @pytest.mark.parametrize(("bands", "color"), [(3, 2), (4, 6)])
    def test_png_in_color(self, tmp_path, bands, color):
        path = png16(tmp_path / "a.png", DEEP[..., :bands], color)
        assert np.array_equal(bits(path), DEEP[..., :3].transpose(2, 0, 1))
        assert np.array_equal(read_image(path), DEEP[..., :3].transpose(2, 0, 1) / np.float32(65_535))
        assert image_type(path) == "uint16"

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(
        "how", [{}, {"compression": "deflate"}, {"compression": "deflate", "predictor": True}, {"tile": (16, 16)}]
    )
    def test_tiff_in_color(self, tmp_path, order, how):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, DEEP[..., :3], photometric="rgb", byteorder=order, **how)
        assert np.array_equal(bits(path), DEEP[..., :3].transpose(2, 0, 1))

    def test_all_values_there_are(self, tmp_path):
        ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
        path = png16(tmp_path / "a.png", np.stack([ramp, ramp[::-1], ramp.T], axis=-1), 2)
        assert np.array_equal(bits(path), [ramp, ramp[::-1], ramp.T])
        assert len(np.unique(read_image(path)[0])) == 65_536

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_grey(self, tmp_path, suffix):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(DEEP[..., 0]).save(path)
        assert np.array_equal(bits(path, mode="L")[0], DEEP[..., 0])
        assert image_type(path) == "uint16"

    def test_color_as_grey_is_the_luma(self, tmp_path):
        path = png16(tmp_path / "a.png", DEEP[..., :3], 2)
        expected = (DEEP[..., :3].astype(float) @ [0.299, 0.587, 0.114]) / 65_535
        np.testing.assert_allclose(read_image(path, mode="L")[0], expected, rtol=1e-5)

    def test_planes_of_tiff_are_refused(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, DEEP[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
        with pytest.raises(DataError, match="separate planes cannot be read without loss"):
            read_image(path)

    def test_grey_with_transparency_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="without loss"):
            read_image(png16(tmp_path / "a.png", DEEP[..., :2], 4))

    def test_turned_by_exif(self, tmp_path):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, DEEP[..., :3], photometric="rgb", extratags=[(274, 3, 1, 3, True)])
        assert np.array_equal(bits(path), DEEP[::-1, ::-1, :3].transpose(2, 0, 1))


class TestFloats:
    @pytest.fixture
    def path(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.linspace(-1e-11, 7e4, 30, dtype=np.float32).reshape(5, 6))
        return tmp_path / "a.tif"

    def test_they_keep_their_numbers_under_a_unit(self, path):
        expected = np.linspace(-1e-11, 7e4, 30, dtype=np.float32).reshape(5, 6)
        assert np.array_equal(read_image(path, mode="L", unit="adu")[0], expected)
        assert image_type(path) == "float32"

    def test_they_are_no_display_units(self, path):
        with pytest.raises(DataError, match="no display range") as caught:
            read_image(path)
        assert "unit: adu" in caught.value.remedy


class TestOtherKinds:
    @pytest.fixture
    def rgb(self):
        return np.random.default_rng(1).integers(0, 256, (16, 20, 3), dtype=np.uint8)

    @pytest.mark.parametrize("suffix", ["tif", "tiff", "webp", "png"])
    def test_without_loss(self, tmp_path, rgb, suffix):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(rgb).save(path, **({"lossless": True} if suffix == "webp" else {}))
        assert np.array_equal(read_image(path), rgb.transpose(2, 0, 1) / np.float32(255))
        assert image_type(path) == "uint8"

    @pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
    def test_transparency_is_dropped_not_composited(self, tmp_path, rgb, suffix):
        alpha = np.arange(320, dtype=np.uint8).reshape(16, 20, 1)
        path = tmp_path / f"a.{suffix}"
        exact = {"lossless": True, "exact": True} if suffix == "webp" else {}
        Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(path, **exact)
        assert np.array_equal(read_image(path), rgb.transpose(2, 0, 1) / np.float32(255))

    def test_a_palette_with_transparent_colors(self, tmp_path):
        image = Image.fromarray((np.arange(12).reshape(3, 4) % 3).astype(np.uint8), mode="P")
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
        image.save(tmp_path / "a.png", transparency=b"\0\x80\xff")
        read = read_image(tmp_path / "a.png")
        assert np.array_equal(read.argmax(axis=0), np.arange(12).reshape(3, 4) % 3)
        assert np.array_equal(read.sum(axis=0), np.ones((3, 4)))

    def test_cmyk(self, tmp_path):
        colors = np.full((16, 16, 3), (200, 100, 30), np.uint8)
        Image.fromarray(colors).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
        np.testing.assert_allclose(read_image(tmp_path / "a.jpg").mean(axis=(1, 2)) * 255, (200, 100, 30), atol=4)

    def test_stacks_are_refused(self, tmp_path, rgb):
        pages = [Image.fromarray(rgb), Image.fromarray(rgb)]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
        with pytest.raises(DataError, match="holds 2 images"):
            read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@given(st.integers(0, 2**32), st.integers(1, 255))
def test_a_flipped_byte_gives_an_image_or_a_named_error(tmp_path, suffix, place, flip):
    path = tmp_path / f"a.{suffix}"
    if suffix == "webp":
        Image.fromarray(DEEP[..., :3].astype(np.uint8)).save(path)
    elif suffix == "png":
        png16(path, DEEP[..., :3], 2)
    else:
        tifffile.imwrite(path, DEEP[..., :3], photometric="rgb")
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= flip
    path.write_bytes(data)
    with suppress(DataError):
        assert np.isfinite(read_image(path)).all()
    with suppress(DataError):
        image_type(path)
