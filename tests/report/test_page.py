"""The report: one file with everything in it, from whatever parts a run directory has."""

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from galdiff.atomic import write_json
from galdiff.errors import DataError
from galdiff.metrics import judge, lupton_rgb
from galdiff.metrics.figure import RULE
from galdiff.pipeline import STAGES
from galdiff.pipeline.evaluation import evaluate
from galdiff.report import write_report
from galdiff.report.page import _curves
from galdiff.report.plots import curves, grid, png, render, save_grid
from galdiff.report.verdicts import SIGNS, plain_name

ASKS = ("round & <b>bold</b>", "edge_on")
SEEDS, SIZE = 4, 16


def pixels(n, seed):
    rng = np.random.default_rng(seed)
    r = np.hypot(*np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2))
    light = rng.uniform(0.3, 0.9, (n, 3, 1, 1)) * np.exp(-r / rng.uniform(1.5, 4, (n, 1, 1, 1)))
    return np.clip(light + rng.normal(0.05, 0.01, (n, 3, SIZE, SIZE)), 0, 1).astype(np.float32)


def write_group(path, group, images, **columns):
    text = {k: np.asarray(v, object) if np.asarray(v).dtype.kind == "U" else np.asarray(v) for k, v in columns.items()}
    data = xr.Dataset({"image": (("sample", "band", "y", "x"), images)}, {k: ("sample", v) for k, v in text.items()})
    data.to_zarr(path, group=group, mode="w", zarr_format=3, consolidated=False)


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(pixels(80, 0), pixels(40, 1), pixels(40, 2), bands=("r", "g", "b"), draws=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory, evaluation):
    """Write a run directory as the stages leave it."""
    folder = tmp_path_factory.mktemp("runs") / "<run>&co"
    write_json_in(
        folder, "evaluation.json", {"figures": [f.to_dict() for f in evaluation.figures], "versions": {"torch": "1"}}
    )
    names = {"reconstruction_input": 5, "reconstruction_mean": 6, "reconstruction_noisy": 7}
    pictures = {name: (("example", "band", "y", "x"), pixels(3, seed)) for name, seed in names.items()}
    dims = ("level", "picture", "band", "y", "x")
    noisy = np.stack([pixels(2, seed) for seed in (8, 9)])
    levels = {
        "noise_level": ("level", np.array([0.1, 0.9])),
        "noise_loss": ("level", np.array([1.0, 0.5])),
        "prediction_noised": (dims, noisy),
        "prediction_clean": (dims, noisy),
    }
    data = evaluation.curves.merge(xr.Dataset(pictures)).merge(xr.Dataset(levels))
    data.to_zarr(folder / "evaluation.zarr", zarr_format=3, consolidated=False)
    n = len(ASKS) * SEEDS
    asked = np.tile(np.repeat(ASKS, SEEDS), 2)
    guidance, seed = np.repeat([1.0, 1.5], n), np.tile(np.arange(SEEDS), 2 * len(ASKS))
    write_group(folder / "samples.zarr", "grid", pixels(2 * n, 3), ask=asked, guidance=guidance, seed=seed)
    write_group(folder / "samples.zarr", "real", pixels(3, 4), ask=np.array([ASKS[1]] * 3))
    lines = [
        {
            "stage": stage,
            "images": i * 100,
            "loss": 1 / (i + 1),
            "mse": 0.1,
            "kl": 1.0,
            "images_per_second": 10.0,
            "skipped_steps": 0,
        }
        for stage in ("autoencoder", "denoiser")
        for i in range(5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json_in(folder, "stages/denoiser.json", {"inputs": {}, "seconds": 12.3})
    (folder / "catalog.yaml").write_text("name: x  # </pre><script>alert(1)</script>\n")
    return folder


@pytest.fixture(scope="module")
def report(run):
    return write_report(run).read_text()


def write_json_in(folder, name, value):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


class Page(HTMLParser):
    """Collects tags, and every address that a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text, self.alts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "xlink:href", "action")]
        self.alts += [v for k, v in attrs if k == "alt"]

    def handle_data(self, data):
        self.text.append(data)


def test_it_shows_every_figure_with_its_floor(report, evaluation):
    text = " ".join("".join(Page(report).text).split())
    for figure in evaluation.figures:
        assert plain_name(figure.name, "display") in text
        if figure.status == "ok":
            assert f"{figure.value:.3g}" in text
            assert f"{figure.floor:.3g}" in text
    assert {f.status for f in evaluation.figures} == {"ok", "too few"}
    assert "too few" in text
    assert "12.3" in text


def test_the_verdict_is_first_and_in_words(report, evaluation):
    page = Page(report)
    text = " ".join("".join(page.text).split())
    counts = Counter(judge(evaluation.figures))
    for verdict, count in counts.items():
        assert f"{SIGNS[verdict]} {count} {verdict}" in text
        assert report.count(f'<td class="verdict {verdict}">') == count
    assert counts["open"] == sum(figure.status == "too few" for figure in evaluation.figures)
    assert text.index("Verdict") < text.index("Real and generated")
    assert " ".join(RULE.split()) in text


def test_display_values_are_not_called_flux(report):
    assert "W1_flux" not in report
    assert plain_name("W1_flux", "display") == "W1_light"
    assert plain_name("W1_flux", "nanomaggy") == "W1_flux"


def test_what_was_evaluated_before_there_were_verdicts_is_shown(tmp_path):
    old = {"name": "FD", "value": 1.0, "error": 0.1, "floor": 0.5, "n": 10, "protocol": "p", "status": "ok", "note": ""}
    write_json(tmp_path / "evaluation.json", {"figures": [old]})
    assert '<td class="verdict open">' in write_report(tmp_path).read_text()


def test_grids_stand_side_by_side_at_both_guidances(report):
    page = Page(report)
    for ask in ASKS:
        for guidance in ("1", "1.5"):
            assert f"generated {ask} at guidance {guidance}" in page.alts
    assert f"real {ASKS[1]}" in page.alts
    assert f"real {ASKS[0]}" not in page.alts
    assert f"seeds 0 to {SEEDS - 1}" in "".join(page.text)
    pictures = [a for a in page.addresses if a.startswith("data:image/png;base64,")]
    # Grids, one of real images, reconstructions and two noise levels.
    assert len(pictures) == 2 * len(ASKS) + 1 + 3 + 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))) as image:
            assert image.size[0] >= SIZE
    assert page.tags.count("svg") == 4  # curves, morphology, training, loss by noise level


def test_curves_have_the_spectrum_of_residuals_with_its_band(evaluation, monkeypatch):
    drawn = []
    monkeypatch.setattr("galdiff.report.page.curves", lambda panels: drawn.extend(panels) or "<svg></svg>")
    _curves(evaluation.curves, "display")
    panels = {panel["title"]: panel for panel in drawn}
    assert len(panels) == 3 * 3
    panel = panels["residual spectrum, band g"]
    assert (panel["xscale"], panel["yscale"]) == ("log", "log")
    for line in panel["lines"][1:]:
        assert (np.asarray(line["low"]) < np.asarray(line["high"])).all()


def test_it_loads_nothing(report):
    page = Page(report)
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", report)


def test_names_are_escaped(report):
    assert "<b>bold" not in report
    assert "round &amp; &lt;b&gt;bold&lt;/b&gt;" in report
    assert "<script" not in report
    assert "&lt;run&gt;&amp;co" in report


def test_written_again_it_shows_the_same_pictures(run, report):
    again = Page(write_report(run).read_text())
    pictures = [[a for a in page.addresses if a.startswith("data:")] for page in (again, Page(report))]
    assert pictures[0] == pictures[1]


def test_stages_stand_in_the_order_of_the_flow_with_their_sum(tmp_path):
    for k, stage in enumerate(reversed(STAGES)):
        write_json_in(tmp_path, f"stages/{stage}.json", {"inputs": {}, "seconds": 2.0**k})
    page = write_report(tmp_path).read_text()
    rows = re.findall(r"<tr><td>([a-z ]+)</td><td class=\"n\">([0-9.]+)</td>", page)
    assert [name for name, _ in rows] == [*STAGES, "in all"]
    assert float(rows[-1][1]) == 2.0 ** len(STAGES) - 1


def test_missing_parts_are_said_to_be_missing(tmp_path):
    text = write_report(tmp_path).read_text()
    parts = ("evaluation", "samples", "sweeps", "curves", "morphology", "pairs", "reconstructions", "metrics")
    for part in parts:
        assert re.search(rf"There (is|are) no {part}", text), part


class TestPlots:
    def test_render_keeps_display_values(self):
        x = np.linspace(0, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
        np.testing.assert_array_equal(render(x, "display"), np.round(x * 255).transpose(0, 2, 3, 1))

    @pytest.mark.parametrize("bands", [1, 2, 3, 5])
    def test_render_any_number_of_bands(self, bands):
        rng = np.random.default_rng(0)
        images = render(rng.normal(size=(2, bands, 8, 8)), "nanomaggy")
        assert (images.shape, images.dtype) == ((2, 8, 8, 3), np.uint8)
        if bands == 1:
            np.testing.assert_array_equal(images[..., 0], images[..., 2])

    def test_brightness_can_be_compared_between_images(self):
        x = np.stack([np.full((1, 8, 8), 1.0), np.full((1, 8, 8), 5.0)])
        one, other = render(x, "e/s")
        assert one.mean() < other.mean()

    def test_the_first_of_physical_bands_is_blue(self):
        star = np.zeros((1, 5, 9, 9))
        star[0, 0, 4, 4], star[0, 4, 2, 2] = 1.0, 1.0
        image = render(star, "nanomaggy")[0]
        assert image[4, 4].argmax() == 2
        assert image[2, 2].argmax() == 0

    def test_color_does_not_depend_on_brightness(self):
        """Lupton et al. 2004: one source at all brightnesses has one ratio of red to green to blue."""
        light = np.geomspace(1e-3, 50, 64).reshape(8, 8)
        x = light * np.array([1.0, 0.6, 0.3])[:, None, None]
        shown = lupton_rgb(x[None] * 1e-11, sky=np.zeros(3), high=np.full(3, 1e-11))[0].astype(float)
        bright = shown[..., 0] > 60
        for k, ratio in ((1, 0.6), (2, 0.3)):
            np.testing.assert_allclose(shown[bright][:, k] / shown[bright][:, 0], ratio, atol=0.02)
        assert shown.max() == 255
        assert (np.diff(shown[..., 0].ravel()) >= 0).all()

    def test_noise_about_the_sky_is_dark(self):
        noise = np.random.default_rng(0).normal(6800, 30, (4, 3, 16, 16))
        noise[:, :, 8, 8] = 1e5
        assert lupton_rgb(noise).mean() < 30

    def test_render_a_constant(self):
        assert np.isfinite(render(np.zeros((1, 1, 4, 4)), "e/s")).all()

    def test_grid_holds_every_image_once(self, tmp_path):
        images = np.stack([np.full((2, 3, 3), i, np.uint8) for i in range(1, 6)])
        sheet = grid(images, 2)
        assert sheet.shape == (3 * 2 + 2, 2 * 3 + 1, 3)
        for i, image in enumerate(images):
            y, x = i // 2 * 3, i % 2 * 4
            np.testing.assert_array_equal(sheet[y : y + 2, x : x + 3], image)
        save_grid(tmp_path / "new" / "grid.png", images, columns=2)
        with Image.open(tmp_path / "new" / "grid.png") as read, Image.open(io.BytesIO(png(sheet))) as shown:
            np.testing.assert_array_equal(np.asarray(read), np.asarray(shown))

    def test_nothing_is_drawn_on_a_linear_scale(self):
        line = {"x": [1, 2], "y": [0, 0], "label": "a", "color": "k"}
        panel = {"title": "t", "xlabel": "x", "ylabel": "y", "lines": [line], "yscale": "log"}
        assert curves([panel]).startswith("<svg")

    def test_curves_escape_their_labels(self):
        line = {"x": [1, 2], "y": [1, 2], "label": "a < b", "color": "k", "low": [0, 1], "high": [2, 3]}
        svg = curves([{"title": "<t>", "xlabel": "x", "ylabel": "y", "lines": [line], "xscale": "log"}])
        assert svg.startswith("<svg")
        assert "<t>" not in svg


@pytest.mark.parametrize("figures", ["3", "[1]", "[{}]", "[null]"])
def test_figures_that_are_none_are_named(tmp_path, figures):
    (tmp_path / "evaluation.json").write_text(f'{{"figures": {figures}}}')
    with pytest.raises(DataError, match=r"evaluation\.json: cannot be read as an evaluation: TypeError"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
