"""Recovery: lines that are known, outliers, errors against what repeated experiments scatter by, and the null."""

import numpy as np
import pytest

from galdiff.errors import DataError
from galdiff.metrics import recovery


def pairs(n, seed, slope=0.9, offset=0.3, scatter=0.1):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 3, n)
    return x, offset + slope * x + rng.normal(0, scatter, n)


def test_a_line_without_scatter_is_exact():
    x = np.linspace(1, 2, 50)
    found = recovery(x, 1.25 * x - 0.5)
    assert float(found["slope"]) == pytest.approx(1.25)
    assert float(found["bias"]) == pytest.approx(np.median(0.25 * x - 0.5))
    assert float(found["scatter"]) == pytest.approx(0, abs=1e-12)
    assert int(found["n"]) == 50
    assert float(found["invalid"]) == 0


def test_one_wild_pair_in_ten_moves_little():
    x, y = pairs(500, 0)
    y[::10] += 50
    found = recovery(x, y)
    assert float(found["slope"]) == pytest.approx(0.9, abs=0.03)
    assert float(found["scatter"]) == pytest.approx(0.1, rel=0.25)
    assert np.polyfit(x, y, 1)[1] > 3


def test_errors_are_what_repeated_experiments_scatter_by():
    many = [recovery(*pairs(80, seed), draws=60) for seed in range(120)]
    for name, truth in (("slope", 0.9), ("scatter", 0.1)):
        values = np.array([float(d[name]) for d in many])
        errors = np.array([float(d[f"{name}_error"]) for d in many])
        assert values.mean() == pytest.approx(truth, rel=0.05)
        assert np.median(errors) == pytest.approx(values.std(), rel=0.3)
    # Of normal residuals the best slope's error is sigma / (sqrt(n) std(x)); Huber's is 2.6 % larger.
    assert np.std([float(d["slope"]) for d in many]) == pytest.approx(0.1 / 80**0.5 / (3 / 12**0.5), rel=0.25)


def test_what_was_dealt_out_at_random_is_not_recovered():
    x, y = pairs(400, 1)
    found = recovery(x, y)
    assert abs(float(found["null_slope"])) < 3 * float(found["null_slope_error"]) / 200**0.5
    assert float(found["null_slope_error"]) == pytest.approx(y.std() / x.std() / 400**0.5, rel=0.2)
    null = recovery(np.random.default_rng(0).permutation(x), y)
    assert abs(float(null["slope"])) < 4 * float(null["slope_error"])


def test_pairs_without_a_value_do_not_count_and_are_told():
    x, y = pairs(100, 2)
    y[:25] = np.nan
    found, kept = recovery(x, y), recovery(x[25:], y[25:])
    assert float(found["invalid"]) == 0.25
    assert float(found["slope"]) == float(kept["slope"])


@pytest.mark.parametrize("n", [0, 1, 9])
def test_too_few_pairs_have_no_answer(n):
    found = recovery(*pairs(n, 3))
    assert np.isnan(found["slope"])
    assert int(found["n"]) == n


def test_one_value_for_all_has_a_bias_but_no_slope():
    y = np.random.default_rng(4).normal(1.7, 0.1, 200)
    found = recovery(np.full(200, 1.5), y)
    assert np.isnan(found["slope"])
    assert float(found["bias"]) == pytest.approx(0.2, abs=0.03)
    assert float(found["scatter"]) == pytest.approx(0.1, rel=0.2)


def test_shapes_must_agree():
    with pytest.raises(DataError, match="do not go together"):
        recovery(np.zeros(3), np.zeros(4))
