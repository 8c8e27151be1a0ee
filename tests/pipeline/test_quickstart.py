"""The embedded default as a user runs it: the conditions must work, not only exist.

The judge is not the run's: it is trained on other simulated galaxies, whose arms and bars are known because they were
drawn, and has never seen a sample.
"""

import numpy as np
import pytest
import xarray as xr

import galdiff
from galdiff.judges import Classifier, auc
from galdiff.metrics import physical_morphology
from galdiff.simulate import simulate_galaxies

pytestmark = pytest.mark.slow

SIZE = 64
TRUTHS = ("has_spiral", "has_bar")


def simulated(n, seed):
    """Stretched images, and for disks seen face on whether they have arms and a bar; NaN for the others."""
    images, truth = simulate_galaxies(n, seed=seed, size=SIZE)
    face_on = (truth["kind"] == "disk").to_numpy() & ~truth["edge_on"].to_numpy(bool)
    known = truth[list(TRUTHS)].to_numpy(float)
    return 2 * np.sqrt(images) - 1, np.where(face_on[:, None], known, np.nan)


@pytest.fixture(scope="module")
def judge():
    return Classifier(3, len(TRUTHS), exclusive=False).fit(*simulated(3000, seed=1001), seed=0, seen=24_000)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    run = galdiff.train("quickstart", out=tmp_path_factory.mktemp("runs"), quiet=True)
    samples = xr.open_zarr(run / "samples.zarr", group="grid", consolidated=False).load()
    return samples.isel(sample=samples["guidance"].to_numpy() == samples["guidance"].to_numpy().max())


def asked(grid, name):
    return grid["image"].to_numpy()[grid["ask"].to_numpy() == name]


def scores(judge, images, truth):
    return judge.predict(2 * np.sqrt(images.clip(0, 1)) - 1)[:, TRUTHS.index(truth)]


@pytest.mark.parametrize("truth", TRUTHS)
def test_judge_knows_held_out_simulations(judge, truth):
    images, known = simulated(1000, seed=1002)
    column = TRUTHS.index(truth)
    rows = np.isfinite(known[:, column])
    assert auc(judge.predict(images[rows])[:, column], known[rows, column] == 1) > 0.9


def test_inclination_is_what_was_asked_for(grid):
    ratio = {
        name: float(np.nanmedian(physical_morphology(asked(grid, name))["axis_ratio"]))
        for name in ("edge_on", "face_on")
    }
    assert ratio["edge_on"] < 0.5
    assert ratio["face_on"] > 0.7


@pytest.mark.parametrize(
    ("truth", "name", "other"), [("has_spiral", "spiral", "no_spiral"), ("has_bar", "bar", "no_bar")]
)
def test_asked_for_features_are_told_from_their_absence(judge, grid, truth, name, other):
    present, absent = (scores(judge, asked(grid, key), truth) for key in (name, other))
    found = np.concatenate([present, absent])
    labels = np.arange(len(found)) < len(present)
    assert auc(found, labels) >= 0.8
    # Conditions dealt out at random tell nothing: the mean over many shuffles has an error of 0.05 / sqrt(200).
    rng = np.random.default_rng(0)
    assert np.mean([auc(found, rng.permutation(labels)) for _ in range(200)]) == pytest.approx(0.5, abs=0.02)
