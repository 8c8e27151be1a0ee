"""Sections of the report that not every run has: sweeps, morphology, votes, the closest pairs."""

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from galdiff.metrics import Figure, judge
from galdiff.report import write_report
from galdiff.report.asked import asked_curves
from galdiff.report.corner import corner_plot
from galdiff.report.distances import distances
from galdiff.report.memorisation import closest_pairs
from galdiff.report.page import curve_panels
from galdiff.report.pictures import grids, sweeps

STEPS, SEEDS, SIZE = 6, 4, 16
STATISTICS = ("gini", "m20", "concentration", "asymmetry", "smoothness", "sersic_index", "r50")


def text(*values):
    return np.array(values, object)


def samples(images, **columns):
    columns = {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in columns.items()}
    data = {"image": (("sample", "band", "y", "x"), images)}
    return xr.Dataset(data, {k: ("sample", v) for k, v in columns.items()})


def level(value):
    return np.full((3, SIZE, SIZE), value, np.float32)


@pytest.fixture
def sweep():
    """Images whose value says their step and their seed, in disorder."""
    step, seed = (x.ravel() for x in np.meshgrid(np.arange(STEPS), np.arange(SEEDS)))
    images = np.stack([level(0.1 * k + 0.02 * s) for k, s in zip(step, seed, strict=True)])
    order = np.random.default_rng(0).permutation(len(step))
    columns = {"sweep": np.full(len(step), "bar"), "step": step, "seed": seed}
    columns |= {"value": np.array([f"{k / 5:g}" for k in step]), "guidance": np.full(len(step), 2.0)}
    return samples(images[order], **{k: v[order] for k, v in columns.items()})


@pytest.fixture
def parts():
    """Distances of infinitely many, of classes and in windows, and their figures."""
    rng = np.random.default_rng(0)
    sizes = np.tile(np.append(300 // np.arange(1, 6), np.nan), (1, 2, 1))
    ladder, slide = ("ladder", "compared"), ("slide", "window")
    curves = {f"ladder_{key}": (ladder, np.array([[0.1, 0.01]])) for key in ("value", "error", "slope")}
    curves |= {"ladder_sizes": ((*ladder, "rung"), sizes), "ladder_distances": ((*ladder, "rung"), 30 / sizes)}
    keys = ("distance", "error", "floor", "floor_error")
    curves |= {f"sliding_{key}": (slide, rng.random((2, 9))) for key in keys}
    curves["sliding_center"] = (slide, np.sort(rng.random((2, 9))))
    data = xr.Dataset(
        curves | {"ladder_name": ("ladder", text("FD_shape")), "sliding_title": ("slide", text("a", "b"))}
    )
    known = {"floor_error": 0.01, "note": "bias of 0.2 at 300 images"}
    names = ("FD_shape", "FD_infinity_shape", "class_FD[no_sub]", "W1_r50")
    figures = [Figure(name, 0.123 + k, 0.045, 0.067, 300, "p", **known) for k, name in enumerate(names)]
    return [*figures, Figure.too_few("class_FD[cdm]", 12, "p", "12 images, 35 needed")], data


def test_distances_of_parts_are_shown(parts, tmp_path):
    figures, data = parts
    found = distances(figures, judge(figures), data)
    assert found["infinite"] == [(figures[0], figures[1])]
    assert [(name, verdict) for name, _, verdict in found["classes"]] == [("no_sub", "fail"), ("cdm", "open")]
    assert found["ladder"].startswith("<svg")
    assert "<!-- FD_shape -->" in found["ladder"]
    assert all(f"<!-- {name} -->" in found["windows"] for name in ("a", "b"))
    assert distances(figures[3:4], ["pass"], xr.Dataset()) == {}
    (tmp_path / "evaluation.json").write_text(json.dumps({"figures": [f.to_dict() for f in figures], "seconds": 7.25}))
    data.to_zarr(tmp_path / "evaluation.zarr", zarr_format=3, consolidated=False)
    page = write_report(tmp_path).read_text()
    section = page[page.index('id="distances"') : page.index('id="morphology"')]
    assert 'href="#distances"' in page
    assert section.count("<svg") == 2
    assert section.count("<table>") == 2
    assert all(part in section for part in ("no_sub", "cdm", "too few", "bias of 0.2 at 300 images", "2.12 ± 0.045"))
    assert "W1_r50" not in section
    # What has no stages has the seconds of its evaluation.
    assert ">evaluation</td>" in page
    assert page.count('<td class="n">7.2') == 2
    (tmp_path / "evaluation.json").unlink()
    shutil.rmtree(tmp_path / "evaluation.zarr")
    assert 'id="distances"' not in write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    ("unit", "power"), [("nJy", "power [nJy² pixel²]"), ("e/s", "power [(e/s)² pixel²]"), ("", "power")]
)
def test_power_has_the_unit_of_a_power(unit, power):
    data = xr.Dataset({"spectrum": ("k", [1.0, 2.0])}, {"band": ("band", text("g"))})
    drawn = curve_panels(data, unit, lambda *_: [{"x": [1, 2], "y": [1, 2], "label": "l", "color": "r"}])
    assert f"<!-- {power} -->" in drawn


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    image = rng.random((3, 3, SIZE, SIZE)).astype(np.float32)
    asked = np.tile(np.linspace(0.05, 0.95, 8), (2, 1))
    morphology = rng.normal(size=(3, 200, len(STATISTICS)))
    morphology[1, :50, 0] = np.nan
    pair, bins = ("pair", "band", "y", "x"), ("question", "bin")
    return {
        "pairs": xr.Dataset(
            {
                "pair_generated": (pair, image),
                "pair_training": (pair, image[::-1]),
                "pair_distance": ("pair", np.array([0.3, 0.1, 0.2])),
                "pair_held_out_distance": ("held_out", np.linspace(0.15, 1, 50)),
            }
        ),
        "votes": xr.Dataset(
            {
                "votes_title": ("question", text("edge-on", "bar")),
                "votes_asked": (bins, asked),
                "votes_found": (bins, asked * 0.9),
                "votes_found_real": (bins, asked),
            }
        ),
        "morphology": xr.Dataset(
            {"morphology": (("set", "sample", "statistic"), morphology)},
            {"set": text("real", "generated", "floor"), "statistic": text(*STATISTICS)},
        ),
    }


def decoded(source):
    with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as image:
        return np.asarray(image)


def test_a_row_of_a_sweep_is_a_seed_and_a_column_a_step(sweep):
    [shown] = sweeps(sweep, xr.Dataset(), "display")
    assert shown["labels"] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    cells = decoded(shown["src"])[SIZE // 2 :: SIZE + 1, SIZE // 2 :: SIZE + 1, 0]
    expected = 0.1 * np.arange(STEPS) + 0.02 * np.arange(SEEDS)[:, None]
    np.testing.assert_allclose(cells / 255, expected, atol=0.003)


def test_pairs_stand_closest_first_with_how_many_held_out_are_closer(arrays):
    shown = closest_pairs(arrays["pairs"], "display")
    assert [p["caption"].split(";")[0] for p in shown["pictures"]] == ["0.1", "0.2", "0.3"]
    held_out = arrays["pairs"]["pair_held_out_distance"].values
    for picture, distance in zip(shown["pictures"], (0.1, 0.2, 0.3), strict=True):
        assert f"{(held_out < distance).sum()} of 50 held out" in picture["caption"]
    first = decoded(shown["pictures"][0]["src"])
    expected = arrays["pairs"]["pair_generated"].values[1].transpose(1, 2, 0)
    np.testing.assert_allclose(first[:, :SIZE] / 255, expected, atol=0.003)


def test_pairs_without_held_out_ones_are_pictures_alone(arrays):
    shown = closest_pairs(arrays["pairs"].drop_vars("pair_held_out_distance"), "display")
    assert (len(shown["pictures"]), shown["plot"]) == (3, "")


def test_votes_have_a_panel_a_question_that_was_asked(arrays):
    data = arrays["votes"]
    data["votes_found"][1], data["votes_found_real"][1] = np.nan, np.nan
    assert asked_curves(data, "votes").count('id="axes_') == 1
    assert asked_curves(data.drop_vars("votes_found_real"), "votes").startswith("<svg")
    data["votes_asked"][:] = np.nan
    assert asked_curves(data, "votes") == ""
    assert asked_curves(data, "numbers") == ""


def test_the_corner_plot_has_every_two_of_six_statistics(arrays):
    assert corner_plot(arrays["morphology"]).count('id="axes_') == 6 * 7 // 2


def test_what_was_hardly_ever_measured_is_left_out_of_the_corner_plot(arrays):
    data = arrays["morphology"]
    data["morphology"][0, 10:, 1] = np.nan
    assert corner_plot(data).count('id="axes_') == 5 * 6 // 2
    data["morphology"][:] = np.nan
    assert corner_plot(data) == ""


def test_a_statistic_that_is_one_number_is_drawn(arrays):
    arrays["morphology"]["morphology"][:, :, 2] = 1.0
    assert corner_plot(arrays["morphology"]).count('id="axes_') == 6 * 7 // 2


def test_sections_are_there_where_their_arrays_are(tmp_path, arrays, sweep):
    notes = {"pairs": "There are no pairs", "morphology": "There is no morphology"}
    for name, data in arrays.items():
        folder = tmp_path / name
        data.to_zarr(folder / "evaluation.zarr", zarr_format=3, consolidated=False)
        page = write_report(folder).read_text()
        missing = [other for other, note in notes.items() if note in page]
        assert missing == [other for other in notes if other != name]
        anchor = {"pairs": "memorisation"}.get(name, name)
        assert f'href="#{anchor}"' in page
        # Where nothing was asked by votes, there is nothing missing.
        assert ("Votes asked for and found" in page) == (name == "votes")
        assert "There are no sweeps" in page
        assert 'href="#sweeps"' not in page
    sweep.to_zarr(tmp_path / "s" / "samples.zarr", group="sweep", mode="w", zarr_format=3, consolidated=False)
    page = write_report(tmp_path / "s").read_text()
    assert "There are no sweeps" not in page
    assert 'alt="sweep of bar: 0, 0.2, 0.4, 0.6, 0.8, 1"' in page


def test_links_lead_to_sections(tmp_path):
    page = write_report(tmp_path).read_text()
    for target in re.findall(r'href="#(\w+)"', page):
        assert f'id="{target}"' in page


def test_grids_have_one_scaling_which_the_real_images_set():
    asks, bright = np.array(["a", "b"]), np.stack([level(0.2), level(0.9)])
    real = samples(np.stack([level(0.0), level(1.0)]), ask=asks)
    drawn = samples(bright, ask=asks, guidance=np.ones(2), seed=np.zeros(2))
    darker = samples(bright / 2, ask=asks, guidance=np.ones(2), seed=np.zeros(2))
    one, other = (grids(x, real, "e/s") for x in (drawn, darker))
    for k in range(2):
        assert one[k]["pictures"][0] == other[k]["pictures"][0]
    assert decoded(one[1]["pictures"][1]["src"])[0, 0, 0] > decoded(other[1]["pictures"][1]["src"])[0, 0, 0]


@pytest.mark.parametrize(("asks", "size"), [(8, 64), (12, 128)])
def test_a_page_of_noise_stays_below_8_mb(tmp_path, asks, size):
    rng = np.random.default_rng(0)
    noise = (rng.random((64, 3, size, size), np.float32) * 0.1).astype(np.float32)
    names = np.repeat([f"ask{k}" for k in range(asks)], 64)
    real = samples(np.concatenate([noise] * asks), ask=names)
    twice = np.concatenate([noise] * (2 * asks))
    columns = {"seed": np.tile(np.arange(64), 2 * asks), "guidance": np.repeat([1.0, 2.0], len(names))}
    shown = grids(samples(twice, ask=np.tile(names, 2), **columns), real, "display")
    sizes = [len(picture["src"]) for section in shown for picture in section["pictures"]]
    assert len(sizes) == 3 * asks
    assert sum(sizes) < 7.5e6


def test_what_was_left_out_is_counted_and_the_first_of_it_named(tmp_path):
    assert 'id="skipped"' not in write_report(tmp_path).read_text()
    lines = [json.dumps({"row": i, "id": f"galaxy-{i}", "why": f"is <cut> off at {i}"}) for i in range(25)]
    lines.insert(0, json.dumps({"id": "3 images", "why": "no row"}))
    (tmp_path / "cutouts.skipped.jsonl").write_text("\n".join(lines))
    page = write_report(tmp_path).read_text()
    assert "26 rows, images or groups of them" in page
    assert "<td>3 images</td><td>no row</td>" in page
    assert "<td>galaxy-8</td><td>is &lt;cut&gt; off at 8</td>" in page
    assert "galaxy-9" not in page
    assert "cutouts.skipped.jsonl" in page
