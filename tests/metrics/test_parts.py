"""Figures of parts: a class or a range of numbers that looks like another is seen, and what is none is not."""

import numpy as np
import pytest
import torch

from galdiff.metrics import FeatureSpace, frechet_distance, frechet_infinity, judge, kernel_distance, sliding_distances
from galdiff.pipeline.evaluation import evaluate
from galdiff.pipeline.families_features import extrapolated, kernel_subsets
from galdiff.pipeline.families_parts import classes, sliding
from galdiff.pipeline.sets import SETS, Labeled, Sets
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import GZ2_TREE

KINDS = Class("kind", ("small", "large", "rare"))
SCHEMA = ConditionSchema([KINDS, Scalar("mass", "kg"), Scalar("angle", "deg", angle=True), Votes("votes", GZ2_TREE)])


class Pixels(FeatureSpace):
    """Images of three pixels are their own features."""

    name, width, protocol = "pixels", 3, "as they are"

    def fit(self, images, unit, *, source="real images"):
        pass

    def measure(self, images):
        return images.reshape(len(images), -1).astype(np.float64)


def drawn(n, seed, *, swapped=False):
    """Three numbers, whose first follows the class and the mass, and what is known of them."""
    rng = np.random.default_rng(seed)
    kind, mass = rng.choice(3, n, p=[0.5, 0.48, 0.02]), rng.uniform(0, 5, n)
    images = rng.normal(size=(n, 1, 1, 3))
    images[:, 0, 0, 0] += 3 * (kind == 1)
    images[:, 0, 0, 1] += mass
    if swapped:
        kind, mass = np.where(kind == 2, 2, 1 - kind), 5 - mass
    votes = torch.zeros(n, len(SCHEMA.by_name["votes"].tree.answers))
    votes[:, 0], votes[:, 1] = torch.from_numpy(mass), 5 - torch.from_numpy(mass)
    values = {"kind": torch.from_numpy(kind), "mass": torch.from_numpy(mass).float(), "votes": votes}
    values["angle"] = torch.zeros(n)
    masks = {name: torch.ones(n, dtype=torch.bool) for name in ("kind", "mass", "angle")}
    masks["votes"] = torch.ones(n, len(SCHEMA.by_name["votes"].tree.questions), dtype=torch.bool)
    masks["mass"][::10] = False
    return images, Conditions(values, masks)


def sets(n=400, *, swapped=False, schema=SCHEMA, **options):
    parts = dict(zip(SETS, (drawn(n, 0), drawn(n, 1, swapped=swapped), drawn(n, 2)), strict=True))
    images, conditions = ({name: part[k] for name, part in parts.items()} for k in (0, 1))
    return Sets(images, (Pixels(),), ("g",), schema=schema, conditions=conditions, **options)


def by_name(evaluation):
    return {figure.name: figure for figure in evaluation.figures}


def test_a_class_that_looks_like_another_is_seen_where_the_whole_is_right():
    whole = sets(swapped=True)
    figure = whole.figure("FD", frechet_distance, whole.features(whole.spaces[0]), "")
    found = by_name(classes(whole))
    assert judge([figure]) == ["pass"]
    assert list(found) == [f"class_FD[{name} by pixels]" for name in KINDS.classes]
    assert judge(list(found.values())) == ["fail", "fail", "open"]
    assert found["class_FD[rare by pixels]"].status == "too few"
    assert "15 needed" in found["class_FD[rare by pixels]"].note
    right = by_name(classes(sets()))
    assert judge(list(right.values())) == ["pass", "pass", "open"]


def test_a_class_is_compared_with_as_many_of_its_own():
    one = sets()
    kind = {name: one.conditions[name].values["kind"].numpy() for name in SETS}
    n = min((of == 0).sum() for of in kind.values())
    a, b = (one.images[name].reshape(-1, 3)[kind[name] == 0][:n] for name in ("generated", "real"))
    figure = by_name(classes(one))["class_FD[small by pixels]"]
    assert (figure.n, figure.value) == (n, pytest.approx(frechet_distance(a, b)))


def test_unknown_classes_and_no_classes_are_left_out():
    one = sets()
    one.conditions["generated"].masks["kind"][:] = False
    assert classes(one).figures == []
    assert classes(sets(schema=ConditionSchema())).figures == []


@pytest.mark.parametrize("n", [400, 60])
def test_numbers_that_show_in_other_objects_are_seen_in_windows(n):
    wrong, right = (by_name(sliding(sets(n, swapped=swapped))) for swapped in (True, False))
    assert list(wrong) == ["sliding_FD[mass [kg] by pixels]", "sliding_FD[smooth by pixels]"] if n == 400 else not wrong
    assert judge(list(wrong.values())) == ["fail"] * len(wrong)
    assert judge(list(right.values())) == ["pass"] * len(wrong)


def test_windows_hold_as_many_real_objects_each():
    one = sets()
    curves = sliding(one).curves
    assert curves["sliding_title"].values.tolist() == ["mass [kg] by pixels", "smooth by pixels"]
    known = {name: one.conditions[name].masks["mass"].numpy() for name in SETS}
    mass = {name: one.conditions[name].values["mass"].numpy()[known[name]] for name in SETS}
    features = {name: one.images[name].reshape(-1, 3)[known[name]] for name in SETS}
    # Of numbers that are all different, a window over ranks is a range of numbers.
    ranks = {name: np.searchsorted(np.sort(mass["real"]), mass[name], "left") for name in SETS}
    n = len(mass["real"])
    middle = {name: np.abs(r / n - 0.5) < 0.1 for name, r in ranks.items()}
    expected = frechet_distance(features["generated"][middle["generated"]], features["real"][middle["real"]])
    assert float(curves["sliding_distance"][0, 4]) == pytest.approx(expected, rel=0.15)
    assert float(curves["sliding_center"][0, 4]) == pytest.approx(np.median(mass["real"]))
    figure = sliding(one).figures[0]
    assert figure.value == pytest.approx(float(curves["sliding_distance"][0].mean()))
    assert (curves["sliding_floor"] > 0).all()
    assert (curves["sliding_floor_error"] > 0).all()


def test_a_span_holds_the_windows_where_the_reference_does_not_reach():
    a, b = drawn(200, 0)[0].reshape(-1, 3), drawn(200, 1)[0].reshape(-1, 3)
    values = np.linspace(0.3, 0.6, 200)
    found = sliding_distances(a, values, b, values, windows=4, width=0.25, span=(0, 1), minimum=20)
    np.testing.assert_allclose(found["center"], [0.125, 0.375, 0.625, 0.875])
    assert np.isfinite(found["distance"].values).tolist() == [False, True, True, False]
    assert sliding_distances(a, np.zeros(200), b, np.zeros(200), windows=2, width=1, span=(0, 1)).sizes["center"] == 2


def test_the_distance_of_infinitely_many_is_shown_and_not_judged():
    one = sets(swapped=True)
    evaluation = extrapolated(one)
    (figure,) = evaluation.figures
    features = one.features(one.spaces[0])
    fit = frechet_infinity(features["real"], features["generated"], rungs=6)
    assert (figure.name, figure.value, figure.error) == ("FD_infinity[pixels]", fit.value, fit.error)
    assert f"bias of {fit.slope:.2g}" in figure.note
    assert judge([figure]) == ["open"]
    curves = evaluation.curves
    np.testing.assert_allclose(curves["ladder_distances"][0, 0], fit.distances)
    np.testing.assert_allclose(curves["ladder_sizes"][0, 0], fit.sizes)
    few = extrapolated(sets(19))
    assert [f.status for f in few.figures] == ["too few"]
    assert "20 needed" in few.figures[0].note
    assert not few.curves


def test_kernel_distances_by_subsets_have_the_error_of_the_whole():
    one = sets(200)
    features = one.features(one.spaces[0])
    (figure,) = kernel_subsets(one).figures
    mean = kernel_distance(features["real"], features["generated"], subsets=20, subset_size=100)
    assert (figure.value, figure.error) == (mean.value, mean.std)
    assert not figure.judged
    for shift, most in ((0.0, 2.0), (2.0, 1.4)):
        rng, distances, errors = np.random.default_rng(0), [], []
        for _ in range(60):
            found = kernel_distance(rng.normal(size=(100, 3)), rng.normal(shift, size=(100, 3)), subset_size=50)
            distances.append(found.value)
            errors.append(found.std)
        # Halves scatter as the whole does over populations; of one population sqrt(3) times that.
        assert 0.75 < np.mean(errors) / np.std(distances) < most


@pytest.mark.parametrize("halved", [False, True])
def test_what_is_known_of_images_stays_with_them(halved, monkeypatch):
    """Sets are drawn, halved and cut to one length; the class of an object shows in its size."""
    monkeypatch.setattr("galdiff.pipeline.evaluation.FAMILIES", (classes,))
    grid = np.arange(24) - 11.5

    def labeled(n, seed):
        rng = np.random.default_rng(seed)
        kind = rng.integers(0, 2, n)
        width = rng.uniform(0.9, 1.1, n) * np.array([1.5, 3.0])[kind]
        q = rng.uniform(0.6, 1, n)[:, None, None]
        r = np.hypot(grid[:, None], grid / q)
        images = np.exp(-r / width[:, None, None]) + rng.normal(0.05, 0.01, (n, 24, 24))
        known = Conditions({"kind": torch.from_numpy(kind)}, {"kind": torch.ones(n, dtype=torch.bool)})
        return Labeled(images[:, None].astype(np.float32), known)

    schema = ConditionSchema([Class("kind", ("small", "large"))])
    given = (None, labeled(500, 0), labeled(260, 1)) if halved else (labeled(400, 0), labeled(250, 1), labeled(260, 2))
    found = evaluate(*given, bands=("g",), schema=schema).figures
    assert [f.name for f in found] == ["class_FD[small]", "class_FD[large]"]
    assert judge(found) == ["pass", "pass"]
