"""Numbers read off images: a judge that learns them, and samples that do not show what was asked for."""

import numpy as np
import pytest

from galdiff.errors import DataError
from galdiff.judges import ScalarJudge, recovery_figures
from galdiff.schema.conditions import Scalar

WIDTH = Scalar("width", "pixel", mean=3.0, std=0.9)


def blobs(n, seed):
    """Draw Gaussians of known widths, some of them unknown."""
    rng = np.random.default_rng(seed)
    width = rng.uniform(1.5, 4.5, n)
    grid = np.arange(16) - 7.5
    r2 = grid[:, None] ** 2 + grid**2
    images = np.exp(-0.5 * r2 / width[:, None, None] ** 2) + 0.05 * rng.normal(size=(n, 16, 16))
    return images[:, None].astype(np.float32), width


def test_a_judge_learns_a_number_from_those_that_are_known():
    images, width = blobs(400, 0)
    lesson = np.where(np.arange(400) % 4 == 0, np.nan, width)
    judge = ScalarJudge(1, [WIDTH], width=8).fit(images, lesson[:, None], seen=6000)
    held_out, truth = blobs(200, 1)
    found = judge.predict(held_out)
    assert found.shape == (200, 1)
    assert np.corrcoef(found[:, 0], truth)[0, 1] > 0.9
    np.testing.assert_allclose(judge.predict(np.rot90(held_out, axes=(2, 3)).copy()), found, atol=0.5)


def pairs(n, seed, *, slope=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 2, n)
    return 1.5 + shift + slope * 0.9 * (truth - 1.5) + 0.05 * rng.normal(size=n), truth


class TestFigures:
    def figures(self, recovered, asked, **options):
        found = recovery_figures(recovered, asked, *pairs(400, 1), "theta_e", reader="eye", unit="arcsec", **options)
        return {f.name: f for f in found}

    def test_samples_like_real_images_pass_and_others_do_not(self):
        names = [f"recovered_{s}[theta_e]" for s in ("slope", "bias", "scatter")]
        good = self.figures(*pairs(400, 2))
        assert list(good) == names
        assert {f.verdict(4.0) for f in good.values()} == {"pass"}
        assert good[names[0]].value == pytest.approx(0.9, abs=0.05)
        assert self.figures(*pairs(400, 2, slope=0.5))[names[0]].verdict(4.0) != "pass"
        assert self.figures(*pairs(400, 2, shift=0.05))[names[1]].verdict(4.0) != "pass"
        assert "arcsec" in good[names[1]].protocol

    def test_what_was_dealt_out_again_has_no_slope(self):
        recovered, asked = pairs(400, 2)
        shuffled = self.figures(recovered, np.random.default_rng(0).permutation(asked))["recovered_slope[theta_e]"]
        assert abs(shuffled.value) < 0.15
        assert shuffled.verdict(4.0) in ("look", "fail")

    def test_too_few_and_one_value_are_no_figures(self):
        recovered, asked = pairs(400, 2)
        few = self.figures(np.where(np.arange(400) < 40, recovered, np.nan), asked)
        assert {(f.status, f.n) for f in few.values()} == {("too few", 40)}
        assert "50 needed" in few["recovered_slope[theta_e]"].note
        one = self.figures(recovered, np.full(400, 1.5))
        assert one["recovered_slope[theta_e]"].status == "too few"


def test_angles_and_other_shapes_are_refused():
    with pytest.raises(DataError, match="no angles"):
        ScalarJudge(1, [Scalar("angle", "deg", angle=True)])
    with pytest.raises(DataError, match="one or more"):
        ScalarJudge(1, [])
    with pytest.raises(DataError, match="not 1 for each"):
        ScalarJudge(1, [WIDTH]).fit(np.zeros((4, 1, 16, 16)), np.zeros((4, 2)))
