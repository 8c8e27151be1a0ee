"""Runs side by side: what is the same figure is ranked, what is not is said not to be."""

import re

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from galdiff import cli
from galdiff.atomic import write_json
from galdiff.errors import DataError
from galdiff.metrics import Figure
from galdiff.report import compare
from galdiff.report.compare import rows_of

runner = CliRunner()


def figure(name="FD", value=1.0, error=0.1, floor=0.5, n=100, protocol="p", **more):
    return Figure(name, value, error, floor, n, protocol, floor_error=0.05, **more)


def write_run(folder, figures, *, real="same", hue=0.5, asks=("spiral", "round")):
    folder.mkdir(parents=True)
    record = {"figures": [f.to_dict() for f in figures], "unit": "display", "real": real}
    write_json(folder / "evaluation.json", record)
    dims = ("set", "band", "radius")
    curves = {"profile": (dims, np.full((3, 1, 4), hue)), "profile_radius": ("radius", np.arange(4.0))}
    coords = {"set": np.array(["real", "generated", "floor"], object), "band": np.array(["r"], object)}
    xr.Dataset(curves, coords=coords).to_zarr(folder / "evaluation.zarr", zarr_format=3, consolidated=False)
    seeds = 20
    images = np.full((len(asks) * seeds * 2, 3, 8, 8), hue, np.float32)
    columns = {
        "ask": np.tile(np.repeat(np.array(asks, object), seeds), 2),
        "guidance": np.repeat([1.0, 1.5], len(asks) * seeds),
        "seed": np.tile(np.arange(seeds), 2 * len(asks)),
    }
    data = xr.Dataset({"image": (("sample", "band", "y", "x"), images)}, {k: ("sample", v) for k, v in columns.items()})
    data.to_zarr(folder / "samples.zarr", group="grid", zarr_format=3, consolidated=False)
    return folder


class TestRows:
    def test_the_closest_to_the_ideal_is_best_within_its_error(self):
        pages = [[figure(value=v)] for v in (1.0, 1.1, 1.5)]
        assert rows_of(pages)[0].best == {0, 1}

    def test_the_ideal_may_be_one_or_the_floor(self):
        ratio = [[figure(value=v, ideal=1.0, error=0.01)] for v in (0.7, 0.98, 1.2)]
        assert rows_of(ratio)[0].best == {1}
        match = [[figure(value=v, ideal=None, floor=0.3, error=0.01)] for v in (0.1, 0.31, 0.9)]
        assert rows_of(match)[0].best == {1}

    @pytest.mark.parametrize("other", [{"protocol": "q"}, {"n": 101}])
    def test_figures_of_different_kinds_are_not_ranked(self, other):
        row = rows_of([[figure()], [figure(value=0.1, **other)]])[0]
        assert not row.best
        assert row.why_not.startswith("not compared")
        assert str(next(iter(other.values()))) in row.why_not

    def test_a_figure_that_one_lacks_is_a_row_too(self):
        rows = rows_of([[figure("a")], [figure("a"), figure("b")]])
        assert [row.name for row in rows] == ["a", "b"]
        assert rows[1].figures[0] is None
        assert not rows[1].best

    def test_too_few_images_rank_nothing(self):
        few = figure(value=None, status="too few", n=3)
        row = rows_of([[few], [figure()]])[0]
        assert (row.best, row.why_not, row.verdicts[0]) == (frozenset(), "", "open")

    def test_unranked_on_request(self):
        assert not rows_of([[figure()], [figure(value=2.0)]], ranked=False)[0].best


class TestPage:
    @pytest.fixture
    def runs(self, tmp_path):
        a = write_run(tmp_path / "a", [figure("FD", 0.9), figure("W1_flux", 0.5), figure("KID", protocol="old")])
        b = write_run(tmp_path / "b <i>", [figure("FD", 3.0), figure("W1_flux", 2.9), figure("KID", protocol="new")])
        return [a, b]

    def test_both_tables_say_the_same(self, runs, tmp_path):
        result = runner.invoke(cli.app, ["compare", *map(str, runs), "-o", str(tmp_path / "c.html")])
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["figure", "a", "b", "<i>"]
        distance = next(line for line in lines if line.startswith("FD"))
        assert re.search(r"0\.9 ± 0\.1 \(0\.5\) \*", distance)
        assert distance.count("*") == 1
        assert any("not compared, protocols differ: old / new" in line for line in lines)
        page = (tmp_path / "c.html").read_text()
        assert page.count('class="best"') == 2
        assert "not compared, protocols differ: old / new" in page
        assert "W1_light" in page
        assert "flux" not in page
        assert "b &lt;i&gt;" in page
        assert "<i>" not in page

    def test_pictures_are_of_the_same_asks_guidance_and_seeds(self, runs, tmp_path):
        compare(runs, tmp_path / "c.html")
        page = (tmp_path / "c.html").read_text()
        assert page.count("data:image/png;base64,") == 4
        assert "spiral, guidance 1.5, seeds 0 to 15" in page
        assert page.count("<svg") == 1
        assert not re.search(r"<script|<link|@import|url\((?!#)|src=\"(?!data:)", page)

    def test_asks_that_only_one_has_are_left_out(self, tmp_path):
        a = write_run(tmp_path / "a", [figure()], asks=("spiral",))
        b = write_run(tmp_path / "b", [figure()], asks=("merger",))
        compare([a, b], tmp_path / "c.html")
        assert "no samples of the same asks" in (tmp_path / "c.html").read_text()

    def test_other_real_images_rank_nothing(self, tmp_path):
        a, b = (write_run(tmp_path / n, [figure(value=v)], real=n) for n, v in (("a", 1.0), ("b", 2.0)))
        table = compare([a, b], tmp_path / "c.html")
        assert "not judged by the same real images" in table
        assert 'class="best"' not in (tmp_path / "c.html").read_text()

    def test_folders_of_one_name_are_told_apart(self, tmp_path):
        runs = [write_run(tmp_path / n / "run", [figure()]) for n in "ab"]
        table = compare(runs, tmp_path / "c.html").splitlines()[0]
        assert table.split() == ["figure", "a/run", "b/run"]

    def test_long_names_leave_the_curves_their_room(self, tmp_path):
        runs = [write_run(tmp_path / f"{letter}{'long' * 25}", [figure()]) for letter in "ab"]
        compare(runs, tmp_path / "c.html")
        assert "<svg" in (tmp_path / "c.html").read_text()

    def test_figures_alone_are_enough(self, tmp_path):
        for name in "ab":
            (tmp_path / name).mkdir()
            write_json(tmp_path / name / "evaluation.json", {"figures": [figure().to_dict()]})
        compare([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
        assert "There are no curves" in (tmp_path / "c.html").read_text()

    def test_what_cannot_be_compared(self, runs, tmp_path):
        with pytest.raises(DataError, match="nothing to be compared with"):
            compare(runs[:1], tmp_path / "c.html")
        with pytest.raises(DataError, match="there is no evaluation here"):
            compare([runs[0], tmp_path], tmp_path / "c.html")
        (tmp_path / "evaluation.json").write_text("{}")
        with pytest.raises(DataError, match="cannot be read as an evaluation"):
            compare([runs[0], tmp_path], tmp_path / "c.html")
        assert not (tmp_path / "c.html").exists()

    @pytest.mark.parametrize("damaged", ["evaluation.zarr/zarr.json", "samples.zarr/grid/zarr.json", "evaluation.json"])
    def test_what_is_damaged_is_named(self, runs, tmp_path, damaged):
        (runs[1] / damaged).write_text('{"zarr')
        result = runner.invoke(cli.app, ["compare", *map(str, runs), "-o", str(tmp_path / "c.html")])
        assert result.exit_code == 2
        assert f"error: {runs[1] / damaged.split('/')[0]}: cannot be read" in result.stderr
        assert not (tmp_path / "c.html").exists()

    def test_a_file_is_no_run(self, runs, tmp_path):
        (tmp_path / "notes").write_text("mine")
        result = runner.invoke(cli.app, ["compare", str(runs[0]), str(tmp_path / "notes"), "-o", str(tmp_path / "c")])
        assert result.exit_code == 2
        assert "there is no evaluation here. Judge a run" in result.stderr
        assert not (tmp_path / "c").exists()

    def test_the_folder_of_the_page_must_be_there(self, runs, tmp_path):
        result = runner.invoke(cli.app, ["compare", *map(str, runs), "-o", str(tmp_path / "nodir" / "c.html")])
        assert result.exit_code == 2
        assert f"error: {tmp_path / 'nodir'}: there is no such folder. Make it" in result.stderr
        assert not (tmp_path / "nodir").exists()
