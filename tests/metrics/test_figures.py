"""Verdicts: decided by floors and error bars, and by how many figures are looked at."""

import json

import numpy as np
import pytest

from galdiff.metrics import Figure, judge


def figure(value, error=0.01, floor=0.1, floor_error=0.01, ideal=0.0, **more):
    return Figure("x", value, error, floor, 100, "p", floor_error=floor_error, ideal=ideal, **more)


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.0, 0.01, "pass"),  # closer than real images is no fault
        (0.1, 0.01, "pass"),
        (0.13, 0.01, "pass"),  # within 2.54 sqrt(2) errors of the floor
        (0.14, 0.01, "look"),
        (0.14, 0.1, "look"),  # its own error bar does not make it pass
        (0.3, 0.01, "look"),
        (0.35, 0.01, "look"),  # beyond three floors, but not beyond their error
        (0.4, 0.01, "fail"),
        (0.4, 0.1, "look"),  # its own error bar reaches three floors
        (0.9, 0.1, "fail"),
    ],
)
def test_distances(value, error, verdict):
    assert judge([figure(value, error)]) == [verdict]


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(("distance", "verdict"), [(0.03, "pass"), (0.05, "look"), (0.2, "fail")])
def test_ratios_have_two_sides(side, distance, verdict):
    assert judge([figure(1 + side * distance, floor=0.99, ideal=1.0)]) == [verdict]


@pytest.mark.parametrize(("value", "verdict"), [(0.52, "pass"), (0.44, "look"), (0.56, "look"), (0.4, "fail")])
def test_where_the_floor_is_the_ideal_departures_count_in_errors(value, verdict):
    assert judge([figure(value, floor=0.5, ideal=None)]) == [verdict]


@pytest.mark.parametrize(
    "unknown", [{"error": None}, {"floor_error": None}, {"floor": None}, {"value": None, "status": "too few"}]
)
def test_without_error_bars_nothing_is_said(unknown):
    assert judge([figure(**{"value": 9.0, **unknown})]) == ["open"]


def test_the_more_figures_the_farther_one_must_stand_out():
    one = figure(0.14)
    assert judge([one]) == ["look"]
    assert set(judge([one] * 20)) == {"pass"}
    # Figures that say nothing do not count.
    assert judge([one, *[figure(None, status="too few")] * 19])[0] == "look"


def test_what_another_figure_is_judged_by_is_open_and_counts_in_no_verdict():
    one, again = figure(0.14), figure(9.0, judged=False)
    assert judge([one, *[again] * 19]) == ["look", *["open"] * 19]
    assert Figure.from_dict(again.to_dict()) == again


def test_real_images_pass_a_whole_page():
    """Values drawn as real ones are: 1 page in 100 may have a figure that does not pass."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        page = [figure(value) for value in 0.1 + 0.01 * rng.standard_normal(20)]
        passed += set(judge(page)) == {"pass"}
    assert passed >= 0.97 * 400


def test_records_of_before_there_were_verdicts_are_read():
    old = {"name": "FD", "value": 1.0, "error": 0.1, "floor": 0.5, "n": 10, "protocol": "p", "status": "ok", "note": ""}
    assert judge([Figure.from_dict(old)]) == ["open"]
    new = figure(0.4)
    assert Figure.from_dict({**new.to_dict(), "verdict": "fail"}) == new


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
class TestWhatIsNotFinite:
    def test_a_value_says_that_it_is_undefined(self, bad):
        one = figure(bad, note="1 is right")
        assert (one.value, one.status) == (None, "undefined")
        assert one.note.startswith("undefined: ")
        assert one.note.endswith("; 1 is right")
        assert judge([one, figure(0.1)]) == ["open", "pass"]
        assert Figure.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False))) == one

    @pytest.mark.parametrize("key", ["error", "floor", "floor_error"])
    def test_what_a_value_is_held_to_leaves_it_open(self, bad, key):
        one = figure(**{"value": 9.0, key: bad})
        assert (one.value, one.status, getattr(one, key)) == (9.0, "ok", None)
        assert f"{key.replace('_', ' ')} undefined" in one.note
        assert judge([one]) == ["open"]


def test_errors_of_few_draws_are_wide():
    """Of 19 and 1 degrees of freedom at 1 %: 2.54 and 31.8 standard deviations."""
    assert [judge([figure(value, freedom=1)]) for value in (0.4, 0.6)] == [["pass"], ["look"]]
    assert judge([figure(0.4, freedom=19)]) == ["fail"]


def test_one_draw_has_no_spread():
    assert judge([figure(9.0, freedom=0), figure(9.0)]) == ["open", "fail"]
