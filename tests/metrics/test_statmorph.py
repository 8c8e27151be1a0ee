"""Morphology against statmorph: its values of 500 real galaxies in a table, and itself where it is installed.

The table is made by `benchmarks/morphology_table.py` from the cutouts and the segmentation that are made here again.
"""

import sys
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import torch

from galdiff.data import ImageFolderDataset
from galdiff.errors import ResourceError
from galdiff.metrics import morphology, morphology_exact
from galdiff.metrics.asymmetry import Asymmetry
from galdiff.metrics.growth import Growth
from galdiff.metrics.smoothness import smoothness
from galdiff.metrics.source import Sources

TABLE = Path(__file__).parent / "data" / "gz1_statmorph.csv"

# Median offset, scatter (1.4826 times the median absolute deviation) and least correlation by rank.
TOLERANCES = {
    "ellipticity": (0.001, 0.002, 0.99),
    "petrosian_radius": (0.01, 0.03, 0.98),
    "petrosian_radius_elliptical": (0.01, 0.03, 0.98),
    "r20": (0.005, 0.005, 0.98),
    "r50": (0.005, 0.005, 0.98),
    "r80": (0.005, 0.01, 0.98),
    "r50_elliptical": (0.25, 0.3, 0.95),  # defined within another aperture
    "flux": (0.02, 0.02, 0.99),
    "gini": (0.001, 0.003, 0.98),
    "m20": (0.001, 0.003, 0.99),
    "gini_m20_bulge": (0.005, 0.01, 0.98),
    "gini_m20_merger": (0.001, 0.003, 0.98),
    "concentration": (0.003, 0.003, 0.97),
    "asymmetry": (0.01, 0.04, 0.8),  # another piece of sky
    "rms_asymmetry2": (0.003, 0.006, 0.9),  # another piece of sky
    "smoothness": (0.003, 0.012, 0.75),  # another piece of sky
    "sersic_index": (0.001, 0.001, 0.97),
    "sersic_radius": (0.001, 0.002, 0.98),
    "sersic_ellipticity": (0.001, 0.001, 0.98),
}


@pytest.fixture(scope="module")
def galaxies(real_data):
    """Images, what we measure of them, and what statmorph measured."""
    table = pd.read_csv(TABLE)
    data = ImageFolderDataset(
        real_data("gz1"), table="smallCSV_class.csv", id="OBJID", label="CLASS", images="images", crop=0.5, size=64
    )
    rows = pd.Index(data.ids).get_indexer(table["id"])
    images = np.stack([data.read(int(row)) for row in rows])
    return images, morphology(images), table


def compare(ours, theirs):
    """Return median offset, scatter and correlation by rank."""
    both = np.isfinite(ours) & np.isfinite(theirs)
    gap = ours[both] - theirs[both]
    spread = 1.4826 * np.median(np.abs(gap - np.median(gap)))
    rank = [pd.Series(v[both]).rank().to_numpy() for v in (ours, theirs)]
    return np.median(gap), spread, np.corrcoef(*rank)[0, 1]


class TestTable:
    @pytest.mark.parametrize("name", TOLERANCES)
    def test_statistics_are_statmorphs(self, galaxies, name):
        _, measured, table = galaxies
        good = (measured["flag"].to_numpy() < 2) & (table["flag"].to_numpy() < 2)
        assert good.sum() > 470
        offset, scatter, correlation = compare(measured[name].to_numpy()[good], table[name].to_numpy()[good])
        allowed = TOLERANCES[name]
        assert (abs(offset) < allowed[0], scatter < allowed[1], correlation > allowed[2]) == (True,) * 3, (
            f"offset {offset:.5f}, scatter {scatter:.5f}, correlation {correlation:.4f}"
        )

    def test_about_as_many_are_bad(self, galaxies):
        _, measured, table = galaxies
        ours, theirs = measured["flag"].to_numpy() == 2, table["flag"].to_numpy() == 2
        assert ours.mean() < 0.02
        assert theirs.mean() < 0.03
        assert (ours != theirs).mean() < 0.03

    def test_with_statmorphs_piece_of_sky_asymmetry_is_its_own(self, galaxies):
        images, measured, table = galaxies
        good = np.flatnonzero((measured["flag"].to_numpy() == 0) & (table["flag"].to_numpy() == 0))
        sources = Sources.find(images[good])
        labels = (sources.object.int() + 2 * sources.masked.int()).numpy()
        boxes = [first_box(row) for row in labels]
        background = torch.zeros_like(sources.background)
        sky, noise = torch.zeros(2, len(good), dtype=torch.float64)
        for i, box in enumerate(boxes):
            background[i][box] = True
            piece = sources.light[i][box]
            sky[i], noise[i] = (piece - piece.flip(0, 1)).abs().mean(), piece.std(correction=0)
        inside = torch.where(sources.object, sources.light, 0.0)
        y, x = (torch.arange(64, dtype=torch.float64) for _ in range(2))
        total = inside.sum(dim=(1, 2))
        centroid = torch.stack([(inside.sum(2) * y).sum(1) / total, (inside.sum(1) * x).sum(1) / total], dim=1)
        radius = 1.5 * Growth.about(sources.light, ~sources.masked, centroid).petrosian()
        of = Asymmetry(sources.light, sources.masked.double(), radius, sky, noise)
        center = torch.from_numpy(measured[["center_y", "center_x"]].to_array().to_numpy().T[good])
        for name, values, tolerance in zip(("asymmetry", "rms_asymmetry2"), of(center), (5e-4, 5e-4), strict=True):
            offset, scatter, correlation = compare(values.numpy(), table[name].to_numpy()[good])
            assert max(abs(offset), scatter) < tolerance
            assert correlation > 0.98
        petrosian = torch.from_numpy(measured["petrosian_radius"].to_numpy()[good])
        there = Sources(sources.bands, sources.light, sources.object, sources.masked, background, noise)
        offset, scatter, correlation = compare(smoothness(there, center, petrosian).numpy(), table["smoothness"][good])
        assert max(abs(offset), scatter) < 0.005
        assert correlation > 0.95


def first_box(labels):
    """Where statmorph measures the sky: the first square without a label in its stamp of two and a half objects."""
    y, x = (np.flatnonzero((labels == 1).any(axis=a)) for a in (1, 0))
    sides = [v[-1] + 1 - v[0] for v in (y, x)]
    reach = max(int(max(sides) * 2.5 / 2), 24)
    begins = [max(0, v[0] + side // 2 - reach) for v, side in zip((y, x), sides, strict=True)]
    ends = [min(n, v[0] + side // 2 + reach) for n, v, side in zip(labels.shape, (y, x), sides, strict=True)]
    size = 32
    while size >= 2:
        for i in range(begins[0], ends[0] - size):
            for j in range(begins[1], ends[1] - size):
                if not labels[i : i + size, j : j + size].any():
                    return np.s_[i : i + size, j : j + size]
        size //= 2
    raise AssertionError("there is sky in every stamp")


class TestStatmorphItself:
    def test_without_it_the_error_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "statmorph", None)
        with pytest.raises(ResourceError, match=r"galdiff\[morphology\]"):
            morphology_exact(np.ones((1, 1, 32, 32)))

    def test_one_object_a_task_and_failures_are_flags(self):
        pytest.importorskip("statmorph")
        y, x = np.mgrid[:64, :64] - 31.6
        galaxy = np.exp(-np.hypot(y, x) / 4) + np.random.default_rng(0).normal(0, 0.01, (64, 64))
        images = np.stack([galaxy, np.zeros((64, 64))])[:, None]
        found = morphology_exact(images, scheduler="threads")
        assert found["flag"].to_numpy().tolist() == [0, 2]
        assert found.attrs["protocol"].startswith("statmorph")
        ours = morphology(images)
        for name in ("gini", "m20", "concentration", "r50", "sersic_index", "petrosian_radius"):
            assert float(found[name][0]) == pytest.approx(float(ours[name][0]), rel=0.02), name
            assert np.isnan(found[name][1])

    def test_it_is_asked_as_many_times_as_there_are_objects(self, monkeypatch):
        pytest.importorskip("statmorph")
        tasks = []
        compute = dask.compute
        monkeypatch.setattr(dask, "compute", lambda *a, **k: tasks.append(len(a)) or compute(*a, **k))
        morphology_exact(np.zeros((5, 1, 32, 32)), scheduler="synchronous")
        assert tasks == [5]
