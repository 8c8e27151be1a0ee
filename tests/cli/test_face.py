"""The public face and the command line: light to import, clear when something is wrong."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import galdiff
from galdiff import cli
from galdiff.config import load
from galdiff.config.build import build_dataset
from galdiff.errors import GaldiffError

HEAVY = ("torch", "numpy", "pandas", "xarray", "zarr", "dask", "matplotlib", "scipy")
runner = CliRunner()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    python(f"import sys, galdiff; assert not {set(HEAVY) | {'typer', 'pydantic'}!r} & set(sys.modules)")


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [("main_train", ["--help"]), ("main", ["--help"]), ("main", ["sample", "--help"]), ("main", ["--version"])],
)
def test_help_is_light(entry, arguments):
    code = f"""
import sys
from galdiff import cli
sys.argv = ["galdiff", *{arguments!r}]
try:
    cli.{entry}()
except SystemExit as end:
    assert end.code == 0
assert not {set(HEAVY)!r} & set(sys.modules)
"""
    assert python(code)


def test_a_catalog_file_is_validated_without_torch():
    python(f"import sys, galdiff.config as c; c.load('quickstart'); assert not {set(HEAVY)!r} & set(sys.modules)")


def test_the_face_knows_its_names():
    assert set(galdiff.__all__) <= set(dir(galdiff))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = galdiff.nothing
    assert galdiff.train is galdiff.train
    assert galdiff.train.__module__ == "galdiff.config.build"


@pytest.mark.parametrize("name", galdiff.__all__)
def test_every_public_name_is_there(name):
    assert getattr(galdiff, name) is not None


def test_mistakes_are_printed_without_a_traceback(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: x\ndata: {kind: gz2, root: x, sise: 3}\n")
    result = runner.invoke(cli.train_app, [str(path), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 1 problem in the catalog file\n")
    assert "x.yaml:2:28: data.sise: there is no such key (did you mean 'size'?)" in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [path]


def test_debug_shows_the_error_itself(tmp_path):
    result = runner.invoke(cli.app, ["train", str(tmp_path / "none.yaml"), "--debug"])
    assert isinstance(result.exception, GaldiffError)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "quikstart"], "did you mean 'quickstart'?"),
        (["train", "quickstart", "--set", "seed"], "an override reads a.b=value"),
        (["train", "quickstart", "--budget", "soon"], "--budget"),
        (["train", "quickstart", "--budget", "1,2,3"], "--budget"),
        (["train", "quickstart", "--budget", "-5"], "--budget"),
        (["train", "quickstart", "--device", "tpu"], "device: should match pattern"),
        (["check", "nothing.yaml"], "there is no such catalog file"),
        (["sample", "nowhere", "-o", "x.jpeg"], "samples are written to .zarr, .fits, .npy, .png"),
        (["sample", "nowhere", "-o", "x.png", "--condition", "spiral"], "a condition reads"),
        (["simulate", "galaxies", "out", "-n", "3", "--size", "17"], "Use an even size"),
        (["simulate", "lenses", "out", "-n", "3", "--model", "V"], "Use I, II, III"),
        (["simulate", "lenses", "out", "-n", "3", "--device", "tpu"], "there is no device 'tpu'"),
        (["evaluate", "nowhere"], "is not a run folder"),
        (["report", "nowhere"], "is not a run folder"),
    ],
)
def test_wrong_arguments(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_version():
    assert runner.invoke(cli.app, ["--version"]).output == f"galdiff {galdiff.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["galaxies", "-n", "3", "--size", "20"], 3),
        (["lenses", "-n", "3"], 3),
        (["lenses", "-n", "3", "--model", "I", "--compat", "--device", "cpu"], 3),
    ],
)
def test_what_is_simulated_can_be_read_as_it_says(arguments, count, tmp_path):
    out = tmp_path / "a folder"
    result = runner.invoke(cli.app, ["simulate", arguments[0], str(out), *arguments[1:]])
    assert result.exit_code == 0, result.output
    catalog = tmp_path / "x.yaml"
    catalog.write_text("name: x\n" + result.stdout[result.stdout.index("data:") :])
    spec = load(catalog)
    data = build_dataset(spec, tmp_path)
    assert len(data) == count
    assert data.read(0).shape[1:] == 2 * (spec.data.size,)
