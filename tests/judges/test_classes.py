"""Figures of classes: judges that know, that guess, that are too sure, and what generated images are worth."""

import numpy as np
import pytest

from galdiff.errors import DataError
from galdiff.judges import auc, class_figures, transfer_figures
from galdiff.judges.classes import _welch
from galdiff.metrics import balanced_accuracy, calibration_error, calibration_floor
from galdiff.schema.conditions import Class

FIELD = Class("substructure", ("no_sub", "cdm", "axion"))


def judged(n, seed, sharpness=1.0):
    """Draw probabilities, and labels that follow them; a sharpness above one is a judge that is too sure."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.6, 0.6, 0.6], n)
    labels = (rng.random(n)[:, None] > p.cumsum(1)).sum(1)
    p = p**sharpness
    return p / p.sum(1, keepdims=True), labels


class TestCalibration:
    def test_one_bin_is_the_gap_of_the_means(self):
        p, y = judged(9, 0)
        gap = abs(p.max(1).mean() - (p.argmax(1) == y).mean())
        assert calibration_error(p, y, bins=15) == pytest.approx(gap)

    def test_a_calibrated_judge_is_at_its_floor_and_a_sure_one_is_not(self):
        errors = [calibration_error(*judged(1000, seed)) for seed in range(40)]
        floor = calibration_floor(judged(1000, 0)[0])
        assert np.mean(errors) == pytest.approx(floor, rel=0.15)
        assert calibration_error(*judged(1000, 0, 3.0)) > 4 * floor

    def test_the_error_of_a_constant_judge_is_known(self):
        y = np.repeat([0, 1], [700, 300])
        assert calibration_error(np.tile([0.9, 0.1], (1000, 1)), y, bins=1) == pytest.approx(0.2)

    def test_the_floor_falls_with_the_square_root_of_the_count(self):
        p, _ = judged(8000, 1)
        assert calibration_floor(p[:2000]) / calibration_floor(p) == pytest.approx(2, rel=0.1)

    def test_nothing_to_measure_is_an_error(self):
        with pytest.raises(DataError, match="no object"):
            calibration_error(np.zeros((0, 3)), np.zeros(0))
        with pytest.raises(DataError, match="do not go with"):
            calibration_error(np.ones((3, 2)) / 2, np.zeros(4))


def test_balanced_accuracy_counts_classes_alike():
    truth = np.repeat([0, 1, 2], [90, 10, 3])
    assert balanced_accuracy(np.zeros(103), truth) == 0.5
    assert np.isnan(balanced_accuracy([0], [0]))


class TestFigures:
    def test_equal_sets_have_equal_figures(self):
        (p, y), (q, t) = judged(900, 2), judged(900, 3)
        figures = {f.name: f for f in class_figures(p, y, q, t, FIELD)}
        assert len(figures) == 6
        for f in figures.values():
            assert f.status == "ok"
            assert abs(f.value - f.floor) < 5 * f.error
        assert figures["class_auc[cdm]"].floor == auc(q[:, 1], t == 1)
        one = [figures[f"class_auc[{name}]"].value for name in FIELD.classes]
        assert figures["class_auc"].value == pytest.approx(np.mean(one))
        assert "calibrated" in figures["class_calibration_error"].note

    def test_what_does_not_show_the_class_that_was_asked_for_is_seen(self):
        (p, y), (q, t) = judged(900, 2), judged(900, 3)
        shuffled = np.random.default_rng(0).permutation(y)
        figures = {f.name: f for f in class_figures(p, shuffled, q, t, FIELD)}
        assert figures["class_auc"].value == pytest.approx(0.5, abs=5 * figures["class_auc"].error)
        assert figures["class_accuracy"].value == pytest.approx(1 / 3, abs=5 * figures["class_accuracy"].error)
        assert figures["class_calibration_error"].value > 5 * figures["class_calibration_error"].floor

    def test_too_few_of_a_class(self):
        p, y = judged(300, 4)
        figures = {f.name: f for f in class_figures(p[y != 2], y[y != 2], p, y, FIELD)}
        assert figures["class_auc[axion]"].status == "too few"
        assert figures["class_auc"].status == "ok"
        assert "1 classes" in figures["class_auc"].note
        assert {f.status for f in class_figures(p[:5], y[:5], p, y, FIELD)} == {"too few"}

    def test_errors_are_known_as_well_as_there_are_draws_and_objects(self):
        p, y = judged(900, 4)
        few = np.flatnonzero(y == 2)[12:]
        kept = np.setdiff1d(np.arange(900), few)
        for draws, freedom in ((100, 99), (30, 29)):
            figures = {f.name: f for f in class_figures(p[kept], y[kept], p, y, FIELD, draws=draws)}
            assert figures["class_auc[axion]"].freedom == 11
            assert {f.freedom for name, f in figures.items() if name != "class_auc[axion]"} == {freedom}

    def test_what_does_not_go_together_is_refused(self):
        p, y = judged(30, 5)
        with pytest.raises(DataError, match="do not go with"):
            class_figures(p[:, :2], y, p, y, FIELD)
        with pytest.raises(DataError, match="outside 0 to 2"):
            class_figures(p, y + 1, p, y, FIELD)


def disks(n, seed, *, swapped=False):
    """Draw small, middle and large disks in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    grid = np.arange(16) - 7.5
    radius = np.array([2.0, 4.0, 6.0])[labels][:, None, None]
    images = (np.hypot(grid[:, None], grid) < radius) + rng.normal(0, 0.2, (n, 16, 16))
    return images[:, None].astype(np.float32), (labels + swapped) % 3


def test_a_sum_of_variances_is_known_by_its_parts():
    assert _welch({99: 1.0, 1: 0.0}) == 99
    assert _welch({99: 0.0, 1: 1.0}) == 1
    assert _welch({20: 1.0, 10: 2.0}) == 20  # 9 / (1 / 20 + 4 / 10)
    assert _welch({99: 0.0, 1: 0.0}) == 99
    rng = np.random.default_rng(0)
    # The variance of such a sum scatters as that of as many draws: 2 / freedom.
    sums = rng.chisquare(20, 20_000) / 20 + 2 * rng.chisquare(10, 20_000) / 10
    assert 2 / (sums.var() / sums.mean() ** 2) == pytest.approx(20, rel=0.05)


def test_generated_images_are_worth_what_they_teach():
    train, held_out = disks(300, 0), disks(150, 1)
    options = {"seed": 0, "seen": 960}
    good = transfer_figures(*disks(300, 2), *train, *held_out, FIELD, **options)
    wrong = transfer_figures(*disks(300, 2, swapped=True), *train, *held_out, FIELD, **options)
    assert [f.name for f in good] == ["transfer_accuracy", "transfer_auc"]
    for right, bad in zip(good, wrong, strict=True):
        assert right.value > 0.9
        assert right.floor > 0.9
        assert bad.value < 0.5
        assert bad.floor == right.floor
        # Of the errors one part is of 100 draws, the other of two trainings.
        assert 1 <= right.freedom <= 99
    few = transfer_figures(*disks(8, 2), *train, *held_out, FIELD, **options)
    assert {f.status for f in few} == {"too few"}
