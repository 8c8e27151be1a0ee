"""Any two sets of images: what goes together is judged, what does not is refused before anything is measured."""

import json
import re

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from typer.testing import CliRunner

import galdiff
from galdiff import cli
from galdiff.data.deeplense import CLASSES
from galdiff.errors import DataError, GaldiffError, ResourceError
from galdiff.judges import Classifier
from galdiff.metrics import FeatureSpace, judge
from galdiff.pipeline import conditional, external, sources
from galdiff.report import read_figures
from galdiff.schema.conditions import Class, ConditionSchema

runner = CliRunner()
SIZE = 16


def pixels(n, seed, *, bands=3, radius=3.0, size=SIZE):
    rng = np.random.default_rng(seed)
    r = np.hypot(*np.mgrid[:size, :size] - (size - 1) / 2)
    light = rng.uniform(0.3, 0.8, (n, bands, 1, 1)) * np.exp(-r / (radius * rng.uniform(0.6, 1.4, (n, 1, 1, 1))))
    return np.clip(light + rng.normal(0.05, 0.01, (n, bands, size, size)), 0, 1).astype(np.float32)


def by_name(result):
    return {figure.name: figure for figure in result.figures}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write 150 real images as PNG."""
    folder = tmp_path_factory.mktemp("real")
    for k, image in enumerate(pixels(150, 0)):
        Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(folder / f"{k:03}.png")
    return folder


@pytest.fixture(scope="module")
def judged(folder, tmp_path_factory):
    """Judge a wrong model's images by the folder, from the command line."""
    place = tmp_path_factory.mktemp("judged")
    array = np.round(pixels(75, 1, radius=5.0) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez(place / "theirs.npz", array)
    options = ["--real", str(folder), "--generated", str(place / "theirs.npz"), "-o", str(place / "out")]
    return runner.invoke(cli.app, ["evaluate", *options]), place / "out"


def test_two_places_are_judged_and_written(judged):
    result, out = judged
    assert result.exit_code == 0, result.output
    assert re.search(r"✗ fail +FD_all ", result.stdout)
    assert re.search(r"W1_light ", result.stdout)
    assert "W1_light" in (out / "report.html").read_text()
    assert "W1_flux" not in (out / "report.html").read_text()
    record = json.loads((out / "evaluation.json").read_text())
    assert record["unit"] == "display"
    assert record["sources"]["generated"]["images"] == 75
    assert {f["verdict"] for f in record["figures"]} <= {"pass", "look", "fail", "open"}
    curves = xr.open_zarr(out / "evaluation.zarr", consolidated=False)
    assert curves["profile"].sizes == {"set": 3, "band": 3, "radius": SIZE // 2}
    assert curves["example_real"].shape == (64, 3, SIZE, SIZE)
    figure = next(f for f in read_figures(out) if f.name == "FD_all")
    assert figure.n == 75
    assert "a half of the real images" in figure.protocol
    assert figure.value > 3 * figure.floor
    assert not (out / "evaluation.unfinished").exists()


def test_arrays_are_judged_as_files_are(folder, judged):
    array = np.round(pixels(75, 1, radius=5.0) * 255).astype(np.uint8)
    again = by_name(galdiff.evaluate(folder, array))
    for figure in read_figures(judged[1]):
        assert again[figure.name] == figure


def test_training_images_are_the_floor_and_the_reference():
    real, generated = pixels(60, 0), pixels(60, 1)
    settings = {"draws": 3}
    given = by_name(galdiff.evaluate(real, generated, train=pixels(100, 2), **settings))
    assert given["W1_gini"].n == 60
    assert "the training split" in given["FD_shape"].protocol
    halved = by_name(galdiff.evaluate(real, generated, **settings))
    assert halved["W1_gini"].n == 30
    assert halved["W1_gini"].status == "too few"


class Mean(FeatureSpace):
    name, width, protocol = "mean", 2, "mean and spread"

    def fit(self, images, unit, *, source="real images"):
        self.fitted = (len(images), unit, source)

    def measure(self, images):
        flat = images.reshape(len(images), -1).astype(np.float64)
        return np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1)


def test_any_feature_space_has_its_distance(tmp_path):
    space = Mean()
    result = galdiff.evaluate(pixels(80, 0), pixels(40, 1), features=[space], draws=3, out=tmp_path / "e")
    figure = by_name(result)["FD[mean]"]
    assert (figure.status, figure.protocol) == ("ok", "mean and spread")
    assert space.fitted == (40, "display", "a half of the real images")
    record = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert record["features"] == [{"name": "mean", "protocol": "mean and spread", "width": 2}]


def other_bands():
    return pixels(8, 0), pixels(8, 1, bands=2), {}, "(2, 16, 16), real ones (3, 16, 16)"


def other_size():
    return pixels(8, 0), pixels(8, 1, size=20), {}, "--size"


def not_square():
    return pixels(8, 0)[..., :10], pixels(8, 1)[..., :10], {}, "not square"


def too_small():
    return pixels(8, 0, size=3), pixels(8, 1, size=3), {}, "images of 3 pixels cannot be measured"


def other_units():
    real = xr.DataArray(pixels(8, 0), dims=("sample", "band", "y", "x"), attrs={"units": "nmgy"})
    return real, np.zeros((8, 3, SIZE, SIZE), np.uint8), {}, "differ in their unit: real nmgy, generated display"


def other_names():
    a, b = (
        xr.DataArray(pixels(8, 0), dims=("sample", "band", "y", "x"), coords={"band": list(names)})
        for names in ("gri", "irg")
    )
    return a, b, {}, "differ in their bands"


def rescaled():
    return pixels(8, 0), pixels(8, 1) * 2 - 1, {}, "not in the same unit"


def bytes_as_numbers():
    return pixels(8, 0), pixels(8, 1) * 255, {}, "not in the same unit"


def declared_display():
    return pixels(8, 0), pixels(8, 1) * 2 - 1, {"unit": "display"}, "display units from 0 to 1"


def not_finite():
    bad = pixels(8, 1)
    bad[5, 0, 3, 3] = np.nan
    return pixels(8, 0), bad, {}, "1 images have NaN or infinite pixels, the first is row 5"


def unknown_space():
    return pixels(8, 0), pixels(8, 1), {"features": ["inception"]}, "there is no feature space 'inception'"


MISTAKES = [other_bands, other_size, not_square, too_small, other_units, other_names, rescaled, bytes_as_numbers]


@pytest.mark.parametrize("make", [*MISTAKES, declared_display, not_finite, unknown_space])
def test_what_does_not_go_together_is_refused_before_work(make, monkeypatch):
    real, generated, options, words = make()
    monkeypatch.setattr(external, "compare", lambda *a, **k: pytest.fail("measured"))
    with pytest.raises(GaldiffError) as error:
        galdiff.evaluate(real, generated, **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 0}, "limit is 0. Give 2 or more"),
        ({"limit": -5}, "limit is -5"),
        ({"limit": "all"}, "limit is 'all'"),
        ({"seed": -1}, "seed is -1. Give 0 or more"),
        ({"draws": 1}, "draws is 1. Give 2 or more"),
        ({"draws": 0}, "draws is 0"),
        ({"unit": "furlong"}, "there is no unit 'furlong'. Use display"),
        ({"device": "foo"}, "there is no device 'foo'"),
        ({"features": ["inception"]}, "there is no feature space"),
    ],
)
def test_wrong_options_leave_nothing_behind(options, words, tmp_path, monkeypatch):
    monkeypatch.setattr(external, "_read", lambda *a, **k: pytest.fail("read"))
    with pytest.raises(GaldiffError) as error:
        galdiff.evaluate(pixels(8, 0), pixels(8, 1), out=tmp_path / "out", **options)
    assert words in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_unit_that_a_file_has_is_one():
    real = xr.DataArray(pixels(120, 0), dims=("sample", "band", "y", "x"), attrs={"units": "e-/s"})
    assert galdiff.evaluate(real, pixels(60, 1), unit="e-/s", draws=2).figures


def test_two_draws_are_as_free_as_one_degree():
    """Real images seldom fail to pass a page, however few the draws."""
    many, few = (galdiff.evaluate(pixels(120, 0), pixels(60, 1), draws=draws).figures for draws in (4, 2))
    assert {f.freedom for f in many if f.error is not None} == {3}
    assert {f.freedom for f in few if f.error is not None} == {1}
    assert set(judge(few)) <= {"pass", "open"}


def test_what_is_undefined_is_open(tmp_path):
    """Images without any structure have no power to be compared."""
    level = np.full((120, 1, SIZE, SIZE), 0.3, np.float32)
    result = by_name(galdiff.evaluate(level, level[:60], any_range=True, draws=3, out=tmp_path / "out"))
    for name in ("power_above_half_Nyquist", "spectrum_difference"):
        assert result[name].status == "undefined"
        assert result[name].note.startswith("undefined")
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {f["verdict"] for f in record["figures"] if f["value"] is None} == {"open"}
    assert read_figures(tmp_path / "out") == list(result.values())


class Wide(Mean):
    """A space that nobody has images enough for."""

    name, width = "wide", 2100


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, {"real": 21_000, "generated": 10_500}),
        ({"train": True}, {"real": 10_500, "generated": 10_500, "train": 10_500}),
        ({"limit": 300}, {"real": 300, "generated": 300}),
        ({"limit": None}, {"real": 22_000, "generated": 22_000}),
        ({"features": []}, {"real": 10_000, "generated": 10_000}),
    ],
)
def test_as_many_images_are_taken_as_a_distance_needs(options, taken, monkeypatch):
    many = np.zeros((22_000, 1, 8, 8), np.float32)
    seen = {}

    def compare(train, real, generated, **settings):
        seen.update({"train": train, "real": real, "generated": generated})
        raise KeyboardInterrupt

    monkeypatch.setattr(external, "compare", compare)
    if options.get("train"):
        options = options | {"train": many}
    with pytest.raises(KeyboardInterrupt):
        galdiff.evaluate(many, many, **{"features": [Wide()], "any_range": True, **options})
    assert {role: len(images) for role, images in seen.items() if images is not None} == taken


def test_a_distance_of_too_few_says_how_to_give_more():
    class Pair(Wide):
        def measure(self, images):
            return np.zeros((len(images), self.width))

    figure = by_name(galdiff.evaluate(pixels(20, 0), pixels(20, 1), features=[Pair()], draws=2))["FD[wide]"]
    assert (figure.value, figure.status) == (None, "too few")
    assert figure.note.startswith("10 images, 10500 needed: galdiff evaluate --limit")
    assert "without --train twice the real ones" in figure.note


def test_ranges_may_differ_on_request():
    result = galdiff.evaluate(pixels(80, 0), pixels(40, 1) * 2 - 1, any_range=True, draws=3)
    assert len(result.figures) > 5


def test_one_real_image_has_no_halves():
    with pytest.raises(DataError, match="two halves"):
        galdiff.evaluate(pixels(1, 0), pixels(4, 1))


def test_a_file_is_not_written_over(folder, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    options = ["--real", str(folder), "--generated", str(folder), "-o", str(path)]
    result = runner.invoke(cli.app, ["evaluate", *options])
    assert result.exit_code == 2
    assert f"error: {path}: cannot write" in result.stderr
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_folder_is_not_written_over(tmp_path):
    (tmp_path / "stages").mkdir()
    with pytest.raises(ResourceError, match="is a run folder"):
        galdiff.evaluate(pixels(4, 0), pixels(4, 1), out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is nothing to judge"),
        (["--real", "a"], "there is nothing to judge"),
        (["x", "--real", "a"], "a run is judged by its own images"),
        (["--real", "a", "--generated", "b"], "there are no images here"),
        (["--real", "a", "--generated", "b", "--device", "foo"], "there is no device 'foo'"),
    ],
)
def test_wrong_options(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(cli.app, ["evaluate", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


class TestConditions:
    """Both know what their lenses are: judges are trained on the real ones."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch):
        monkeypatch.setattr(conditional, "_TRANSFER", 64)
        monkeypatch.setattr(conditional, "_SEEN", 64)
        fit = Classifier.fit
        monkeypatch.setattr(Classifier, "fit", lambda self, *a, seen=64, **k: fit(self, *a, seen=64, **k))

    def write(self, folder, seed):
        """Write 160 rings, of two classes, in folders."""
        rng = np.random.default_rng(seed)
        r = np.hypot(*(np.mgrid[:24, :24] - 11.5))
        for k in range(160):
            name = ("no_sub", "axion")[k % 2]
            (folder / name).mkdir(parents=True, exist_ok=True)
            image = np.exp(-0.5 * ((r - rng.uniform(5, 7)) / 2) ** 2) + 0.05 * rng.normal(size=r.shape)
            np.save(folder / name / f"{k}.npy", 10 * image)
        return folder

    def test_folders_of_lenses_are_judged_by_class_and_ring(self, tmp_path):
        real, generated, train = (self.write(tmp_path / name, k) for k, name in enumerate(("a", "b", "c")))
        figures = by_name(galdiff.evaluate(real, generated, train=train, draws=3))
        assert figures["ring_found"].value > 0.9
        assert {"class_auc", "transfer_accuracy", "W1_einstein_radius"} <= set(figures)
        assert "memorisation_replication_rate[physical-10]" in figures
        assert figures["memorisation_replication_rate"].n == 160
        few = {"draws": 3, "judges": False, "lenses": False, "memorisation": False}
        plain = by_name(galdiff.evaluate(real, generated, train=train, **few))
        assert not {"class_auc", "ring_found"} & set(plain)
        assert not [name for name in plain if "memorisation" in name]

    def test_what_is_not_known_of_all_is_not_judged(self, tmp_path):
        real = self.write(tmp_path / "a", 0)
        source = sources.open_images(real)
        assert source.schema.fields[0].classes == CLASSES
        assert len(source.conditions) == source.n == 160
        np.save(real / "stranger.npy", np.zeros((24, 24)))
        assert sources.open_images(real).schema is None
        assert not conditional.shared_schema([source.schema, None]).fields
        other = ConditionSchema([Class("substructure", ("cdm", "axion"))])
        assert not conditional.shared_schema([source.schema, other]).fields
        assert conditional.shared_schema([source.schema, source.schema]) == source.schema
