"""What ``galdiff sample`` refuses before it draws anything, and files that are whole or absent."""

import contextlib
import errno
import os
import resource

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from galdiff import LatentDiffusion, cli
from galdiff.cli.options import appearing, refuse_output
from galdiff.config.samples import save_samples
from galdiff.errors import ResourceError

runner = CliRunner()
SUFFIXES = (".zarr", ".fits", ".npy", ".png")


@pytest.fixture
def images() -> xr.DataArray:
    pixels = np.random.default_rng(0).random((5, 3, 64, 64), dtype=np.float32)
    coords = {"seed": ("sample", np.arange(5)), "band": ["r", "g", "b"]}
    return xr.DataArray(pixels, dims=("sample", "band", "y", "x"), coords=coords, attrs={"units": "display"})


@contextlib.contextmanager
def full_disk(most=12_000):
    """No file can grow beyond some bytes, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sample(*arguments):
    return runner.invoke(cli.app, ["sample", "nowhere", *map(str, arguments)])


@pytest.mark.parametrize(
    ("condition", "remedy"),
    [
        ("guidance=3", "Use --guidance"),
        ("steps=4", "Use --steps"),
        ("seed=1", "Use --seed"),
        ("precision=bfloat16", "Use --precision"),
        ("n=5", "Use -n"),
        ("self=1", "Only Python's LatentDiffusion.sample has it"),
        ("noise=3", "Only Python's LatentDiffusion.sample has it"),
        ("sampler=euler", "Only Python's LatentDiffusion.sample has it"),
        ("options.eta=1", "Only Python's LatentDiffusion.sample has it"),
    ],
)
def test_options_are_no_conditions(tmp_path, condition, remedy):
    result = sample("-o", tmp_path / "x.png", "--condition", condition)
    assert result.exit_code == 2
    name = condition.partition("=")[0].partition(".")[0]
    assert result.stderr == f"error: --condition {name}: '{name}' is not a condition. {remedy}\n"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_written_over(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(LatentDiffusion, "load", lambda *_, **__: pytest.fail("it was too late"))
    path = tmp_path / f"x{suffix}"
    path.write_text("mine")
    result = sample("-o", path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {path}: is there already. Remove it, or write elsewhere\n"
    assert path.read_text() == "mine"


def test_folders_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr(LatentDiffusion, "load", lambda *_, **__: pytest.fail("it was too late"))
    result = sample("-o", tmp_path / "none" / "x.npy")
    assert result.exit_code == 2
    assert "none: there is no such folder" in result.stderr
    (tmp_path / "file").write_text("")
    assert "file: there is no such folder" in sample("-o", tmp_path / "file" / "x.npy").stderr
    result = sample("-o", tmp_path / "x.jpeg")
    assert result.exit_code == 2
    assert "samples are written to" in result.stderr


def test_folders_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ResourceError, match="cannot write: Permission denied"):
        refuse_output(tmp_path / "x.npy")


def test_links_to_nothing_are_something(tmp_path):
    (tmp_path / "x.npy").symlink_to(tmp_path / "none")
    with pytest.raises(ResourceError, match="is there already"):
        refuse_output(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_appears_under_its_name(images, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    leftover = tmp_path / f"x.unfinished{suffix}"
    leftover.write_text("of a run that was killed")
    with appearing(path) as unfinished:
        save_samples(images, unfinished)
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(images, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with pytest.raises(ResourceError) as caught, full_disk(), appearing(path) as unfinished:
        save_samples(images, unfinished)
    assert caught.value.where == str(path)
    assert "full" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_stamps(images, tmp_path):
    with pytest.raises(ResourceError, match=r"stamps: cannot be written: .* The disk may be full"), full_disk():
        images.galdiff.to_fits(tmp_path / "stamps")
    assert not list(tmp_path.iterdir())


def test_errors_of_numpy_have_no_number(tmp_path):
    def write(path):
        with appearing(path) as unfinished:
            unfinished.write_text("a part")
            raise OSError("problem writing element 0 to file")

    with pytest.raises(ResourceError, match=r"x\.npy: cannot be written: problem writing element 0"):
        write(tmp_path / "x.npy")
    assert not list(tmp_path.iterdir())
