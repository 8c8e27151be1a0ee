"""What figures say of one known defect, and of none: populations of the response matrix, a few hundred images."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from galdiff.metrics.figure import judge
from galdiff.pipeline.evaluation import evaluate
from galdiff.simulate.galaxies import BANDS

SPOILED = {
    "blur": lambda d, x, rng: gaussian_filter(x.images, (0, 0, 1, 1)),
    "noise": lambda d, x, rng: d.noisier(x, 1.5, rng),
    "color": lambda d, x, rng: d.brightened(x.images, (1.5, 1.0, 1.0)),
}
SEEN_BY = {"blur": "power_above_half_Nyquist", "noise": "W1_sky_noise", "color": "W1_color"}


@pytest.fixture(scope="module")
def response():
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield importlib.import_module("benchmarks.response")


@pytest.fixture(scope="module")
def defects(response):
    return importlib.import_module("benchmarks.defects")


@pytest.fixture(scope="module")
def sets(defects, tmp_path_factory):
    return defects.galaxies(1000, tmp_path_factory.mktemp("galaxies"))


def verdicts(sets, images):
    figures = evaluate(sets["floor"].images, sets["real"].images, images, bands=BANDS).figures
    return dict(zip([figure.name for figure in figures], judge(figures), strict=True))


def test_no_defect_passes_the_whole_page(sets):
    assert set(verdicts(sets, sets["generated"].images).values()) <= {"pass", "open"}


@pytest.mark.parametrize("name", SPOILED)
def test_a_defect_fails_where_it_is_measured(defects, sets, name):
    images = SPOILED[name](defects, sets["generated"], np.random.default_rng(0))
    assert verdicts(sets, images)[SEEN_BY[name]] == "fail"


def test_undone_rendering_renders_to_the_same_picture(defects, sets):
    images = sets["real"].images
    np.testing.assert_allclose(defects.rendered(defects.linear(images)), images, atol=1e-5)


def test_arms_turn_one_way_and_the_conditions_ask_for_it(defects, sets):
    counts = np.concatenate([part.votes for part in sets.values()])
    assert not counts[:, defects.TREE.find("right")[1]].any()
    assert counts[:, defects.TREE.find("left")[1]].any()


def test_bars_are_found_by_a_judge_that_knows_them_and_not_by_one_that_guesses(response, sets):
    def found(a):
        return response._bars_found({name: np.hstack([1 + a(part.votes), part.votes]) for name, part in sets.items()})

    knows = found(lambda votes: votes)
    assert knows.value == pytest.approx(knows.floor, abs=3 * np.hypot(knows.error, knows.floor_error))
    assert knows.value > 0.5
    guesses = found(np.random.default_rng(0).permutation)
    assert abs(guesses.value) < 4 * guesses.error


@pytest.mark.parametrize("name", ["none", "copies", "bars", "class", "mirrored"])
def test_defects_of_the_population_change_as_many_images_as_they_say(defects, sets, name):
    generated = sets["generated"]
    images = defects.DEFECTS[name](sets, np.random.default_rng(0))
    n, truth = len(generated.images), generated.truth
    changed = (images != generated.images).any(axis=(1, 2, 3)).sum()
    wanted = {"none": 0, "copies": n // 100, "bars": -(-truth["has_bar"].sum() // 10), "class": truth["edge_on"].sum()}
    assert changed == wanted.get(name, n)
