"""Votes: the likelihood by scipy's, calibration by a judge that knows the truth, and by ones that do not."""

import numpy as np
import pytest
import torch
from scipy.stats import beta, betabinom, binom, dirichlet_multinomial

from galdiff.errors import DataError
from galdiff.judges import VoteHead, VoteJudge, vote_figures
from galdiff.metrics import dirichlet_multinomial_nll, vote_calibration
from galdiff.metrics.votes import STATISTICS, VoteComparison
from galdiff.schema.trees import GZ2_TREE, QuestionTree

TREE = QuestionTree.from_dict(
    {
        "name": "small",
        "questions": {
            "shape": [["smooth", "smooth", "round"], ["disk", "disk", "bar"], ["star", "star", None]],
            "bar": [["yes", "bar", None], ["no", "no_bar", None]],
            "round": [["very", "very", None], ["little", "little", None], ["not", "not", None]],
        },
    }
)


def population(n, seed, tilt=1.0):
    """Draw concentrations, and votes that follow them through the tree; a tilt favors the first answers."""
    rng = np.random.default_rng(seed)
    alpha = np.exp(rng.normal(0.7, 1.0, (n, 8)))
    p = [rng.standard_gamma(alpha[:, s] * [tilt] + 0 * alpha[:, s]) for s in (slice(0, 3), slice(3, 5), slice(5, 8))]
    p = [x / x.sum(1, keepdims=True) for x in p]
    first = rng.multinomial(40, p[0])
    votes = np.hstack([first, rng.multinomial(first[:, 1], p[1]), rng.multinomial(first[:, 0], p[2])])
    return alpha, votes, np.ones((n, 3), dtype=bool)


class TestLikelihood:
    def test_is_that_of_scipy(self):
        alpha, votes, _ = population(50, 0)
        nll = dirichlet_multinomial_nll(torch.from_numpy(alpha), torch.from_numpy(votes), TREE).numpy()
        for q in range(3):
            s = TREE.answer_slice(q)
            # Not every scipy that is supported knows that nobody asked is certain.
            expected = [
                -dirichlet_multinomial.logpmf(k, a, k.sum()) if k.any() else 0.0
                for a, k in zip(alpha[:, s], votes[:, s], strict=True)
            ]
            np.testing.assert_allclose(nll[:, q], expected, rtol=1e-9, atol=1e-9)

    def test_nobody_asked_is_certain_and_teaches_nothing(self):
        alpha = torch.rand(4, len(GZ2_TREE.answers), dtype=torch.float64).requires_grad_()
        nll = dirichlet_multinomial_nll(alpha, torch.zeros_like(alpha), GZ2_TREE)
        assert nll.abs().max() < 1e-12
        assert torch.autograd.grad(nll.sum(), alpha)[0].abs().max() < 1e-12

    def test_a_head_learns_the_rates_and_how_sure_they_are(self):
        """Of one kind of galaxy the best concentrations are those that its votes were drawn from."""
        rng = np.random.default_rng(1)
        truth = np.array([6.0, 3.0, 1.0, 0.5, 0.5, 4.0, 8.0, 20.0])
        p = [rng.dirichlet(truth[s], 2000) for s in (slice(0, 3), slice(3, 5), slice(5, 8))]
        votes = torch.from_numpy(np.hstack([rng.multinomial(30, x) for x in p])).float()
        mask = torch.ones(2000, 3, dtype=torch.bool)
        # What is masked does not count, whatever it says.
        votes[:500, 3:5], mask[:500, 1] = 99.0, False
        head, ones = VoteHead(1, TREE), torch.ones(2000, 1)
        optimizer = torch.optim.Adam(head.parameters(), 0.2)
        for _ in range(150):
            optimizer.zero_grad()
            head.loss(ones, votes, mask).backward()
            optimizer.step()
        np.testing.assert_allclose(head(ones)[0].detach(), truth, rtol=0.15)


class TestCalibration:
    def test_a_judge_that_knows_the_truth_is_calibrated(self):
        alpha, votes, mask = population(4000, 2)
        found = vote_calibration(alpha, votes, mask, TREE)
        for q in range(3):
            n = float(found["galaxies"][q])
            assert n > 1000
            # The answers of a question are not independent: the error is that of galaxies.
            for name, width in (("coverage68", 0.6827), ("coverage95", 0.9545)):
                assert float(found[name][q]) == pytest.approx(width, abs=4 * (width * (1 - width) / n) ** 0.5)
        assert found["bias"].max() < 0.02
        assert found["calibration_error"].max() < 0.03
        # What is predicted is the mean of what is asked, not the other way round: slopes are the other regression's.
        fractions = votes[:, 3] / np.maximum(votes[:, 3:5].sum(1), 1)
        predicted, w = alpha[:, 3] / alpha[:, 3:5].sum(1), votes[:, 3:5].sum(1)
        c = np.cov(fractions, predicted, aweights=w)
        assert float(found["slope"][1]) == pytest.approx(c[0, 1] / c[0, 0], rel=1e-6)

    @pytest.mark.parametrize(("factor", "low", "high"), [(20.0, 0.0, 0.6), (0.05, 0.75, 1.0)])
    def test_one_too_sure_or_not_sure_enough_is_seen_in_the_coverage(self, factor, low, high):
        alpha, votes, mask = population(1500, 3)
        found = vote_calibration(factor * alpha, votes, mask, TREE)
        assert found["coverage68"].min() > low
        assert found["coverage68"].max() < high
        assert found["bias"].max() < 0.03
        right = vote_calibration(alpha, votes, mask, TREE)
        assert (found["nll"] > right["nll"] + 0.05).all()

    def test_a_biased_one_is_caught(self):
        alpha, votes, mask = population(1500, 4)
        biased = alpha.copy()
        biased[:, 3] *= 3
        found, right = (vote_calibration(a, votes, mask, TREE) for a in (biased, alpha))
        assert found["bias"][1] > 0.1 > 5 * right["bias"][1]
        assert found["answer_bias"].sel(answer="yes") > 0.1
        assert found["answer_bias"].sel(answer="no") == pytest.approx(-found["answer_bias"].sel(answer="yes"))
        assert found["calibration_error"][1] > 0.1
        assert found["coverage68"][1] < 0.62
        for name in STATISTICS:
            np.testing.assert_allclose(found[name][[0, 2]], right[name][[0, 2]], atol=0.01)

    def test_shuffled_votes_have_no_slope(self):
        alpha, votes, mask = population(2000, 5)
        rng = np.random.default_rng(0)
        shuffled = [votes[rng.permutation(len(votes))] for _ in range(40)]
        slopes = [vote_calibration(alpha, v, mask, TREE, simulations=1)["slope"].to_numpy() for v in shuffled]
        assert np.abs(np.mean(slopes, axis=0)).max() < 0.03
        assert vote_calibration(alpha, votes, mask, TREE)["slope"].min() > 0.3

    def test_a_galaxy_counts_by_its_reach(self):
        """Twice the same galaxies, one half with a question that one volunteer in forty was asked."""
        alpha, votes, mask = population(1000, 6)
        few = votes.copy()
        few[:, 3:5] = [1, 0]
        found = vote_calibration(np.vstack([alpha, alpha]), np.vstack([votes, few]), np.vstack([mask, mask]), TREE)
        alone = vote_calibration(alpha, votes, mask, TREE)
        assert float(found["bias"][1]) < float(alone["bias"][1]) + 0.06
        # And where it is masked, not at all.
        hidden = mask.copy()
        hidden[:, 1] = False
        found = vote_calibration(np.vstack([alpha, alpha]), np.vstack([votes, few]), np.vstack([mask, hidden]), TREE)
        for name in ("slope", "bias", "calibration_error", "nll"):
            assert float(found[name][1]) == pytest.approx(float(alone[name][1]), rel=1e-9)

    def test_ranks_are_those_of_the_beta_binomial_law(self):
        """The central interval of simulated votes against its exact probability, for one question."""
        tree = QuestionTree.from_dict({"name": "one", "questions": {"bar": [["yes", "yes", None], ["no", "no", None]]}})
        n, total = 8000, 25
        alpha = np.tile([3.0, 5.0], (n, 1))
        k = binom.rvs(total, beta.rvs(3, 5, size=n, random_state=0), random_state=1)
        found = vote_calibration(alpha, np.stack([k, total - k], 1), np.ones((n, 1), bool), tree)
        assert float(found["coverage68"][0]) == pytest.approx(0.6827, abs=0.02)
        nll = -betabinom.logpmf(k, total, 3, 5).mean()
        assert float(found["nll"][0]) == pytest.approx(nll, rel=1e-9)

    def test_what_does_not_fit_is_refused(self):
        alpha, votes, mask = population(5, 0)
        with pytest.raises(DataError, match="not of small"):
            vote_calibration(alpha[:, :5], votes[:, :5], mask, TREE)
        with pytest.raises(DataError, match="positive"):
            vote_calibration(0 * alpha, votes, mask, TREE)

    def test_a_question_that_nobody_was_asked_is_unknown_and_not_an_error(self):
        alpha, votes, mask = population(50, 0)
        votes[:, 3:5] = 0
        found = vote_calibration(alpha, votes, mask, TREE)
        assert all(np.isnan(found[name][1]) for name in STATISTICS)
        assert found["galaxies"][1] == 0
        assert all(np.isfinite(found[name][[0, 2]]).all() for name in STATISTICS)


def test_figures_have_errors_and_floors():
    (alpha, votes, mask), (real, given, known) = population(600, 7), population(600, 8)
    figures = {f.name: f for f in vote_figures(alpha, votes, mask, real, given, known, TREE)}
    assert len(figures) == 3 * len(STATISTICS) + len(TREE.answers)
    for figure in figures.values():
        assert figure.status == "ok"
        assert abs(figure.value - figure.floor) < 6 * figure.error + 0.02
    assert 0.005 < figures["votes_coverage68[shape]"].error < 0.05
    few = vote_figures(alpha[:20], votes[:20], mask[:20], real, given, known, TREE)
    assert {f.status for f in few} == {"too few"}
    assert all(f.value is None for f in few)


BARS = QuestionTree.from_dict({"name": "bars", "questions": {"bar": [["yes", "yes", None], ["no", "no", None]]}})


def barred(n, seed, *, missing=0.0, separation=2.3):
    """Draw the votes on galaxies, a fifth barred, and a judge's reading of images of which some lack the bar."""
    rng = np.random.default_rng(seed)
    bar = rng.random(n) < 0.2
    total = rng.integers(2, 30, n)
    yes = rng.binomial(total, np.where(bar, rng.beta(12, 4, n), rng.beta(2, 14, n)))
    shown = bar & (rng.random(n) >= missing)
    odds = separation * (shown * separation + rng.normal(size=n) - separation / 2) + np.log(0.2 / 0.8)
    p = 0.12 + 0.63 / (1 + np.exp(-odds))  # the fraction that such odds let expect
    return 10 * np.stack([p, 1 - p], axis=1), np.stack([yes, total - yes], axis=1), np.ones((n, 1), bool)


class TestFound:
    def test_a_tenth_of_the_bars_is_missed_among_four_thousand_galaxies(self):
        """By a judge with an area under the ROC curve of 0.99, at the level of a page of fifty figures."""
        real = barred(4000, 1, separation=3.3)
        good, bad = (
            {f.name: f for f in vote_figures(*barred(4000, 0, separation=3.3, missing=m), *real, BARS, draws=2)}
            for m in (0.0, 0.1)
        )
        assert good["votes_found[yes]"].verdict(3.6) == "pass"
        found = bad["votes_found[yes]"]
        assert found.verdict(3.6) in ("look", "fail")
        assert found.value / found.floor == pytest.approx(0.9, abs=0.05)
        assert found.freedom == 199

    def test_the_shares_scatter_as_their_errors_say(self):
        line = VoteComparison(*barred(4000, 1), BARS, simulations=1).intercepts()
        drawn = (VoteComparison(*barred(1000, seed), BARS, simulations=1) for seed in range(40))
        found = [rows.found(line, np.ones(1000))[0] for rows in drawn]
        error = vote_figures(*barred(1000, 0), *barred(4000, 1), BARS, draws=2)[-2].error
        assert np.std(found) == pytest.approx(error, rel=0.4)

    def test_other_asks_of_the_same_judge_have_the_same_slope(self):
        """Fewer barred galaxies asked for is no defect."""
        line = VoteComparison(*barred(20_000, 3), BARS, simulations=1).intercepts()
        rows = VoteComparison(*barred(20_000, 4), BARS, simulations=1)
        few = np.where(rows.asked[:, 0] > 0.5, 0.5, 1.0)
        both = [rows.found(line, times)[0] for times in (np.ones(len(rows)), few)]
        assert both[0] == pytest.approx(both[1], rel=0.1)


class TestJudge:
    TREE = QuestionTree.from_dict(
        {
            "name": "hands",
            "questions": {
                "hand": [["left", "left", None], ["right", "right", None]],
                "spot": [["s", "s", None], ["l", "l", None]],
            },
            "mirror": [["left", "right"]],
        }
    )

    def galaxies(self, n, seed):
        """Draw an L or its mirror image, with a spot or without; volunteers err now and then."""
        rng = np.random.default_rng(seed)
        left, spot = rng.integers(0, 2, (2, n)).astype(bool)
        images = np.zeros((n, 1, 16, 16), dtype=np.float32)
        images[:, :, 2:14, 4:7] = images[:, :, 11:14, 4:13] = 1
        images[spot, :, 5:8, 9:12] = 2
        images[~left] = images[~left][..., ::-1]
        images += rng.normal(0, 0.2, images.shape)
        first, second = rng.binomial(30, np.where(left, 0.9, 0.1)), rng.binomial(20, np.where(spot, 0.2, 0.8))
        votes = np.stack([first, 30 - first, second, 20 - second], axis=1)
        return images, votes, np.ones((n, 2), dtype=bool)

    def test_learns_what_volunteers_say_and_mirror_answers_swap(self):
        images, votes, mask = self.galaxies(500, 0)
        judge = VoteJudge(1, self.TREE, width=8).fit(images, votes, mask, seen=6400)
        images, votes, mask = self.galaxies(300, 1)
        alpha = judge.predict(images)
        found = vote_calibration(alpha, votes, mask, self.TREE)
        assert found["slope"].min() > 0.8
        assert found["bias"].max() < 0.1
        mirrored = vote_calibration(judge.predict(images[..., ::-1].copy()), votes, mask, self.TREE)
        assert mirrored["slope"][0] < -0.8
        assert mirrored["slope"][1] == pytest.approx(float(found["slope"][1]), abs=0.15)

    def test_votes_of_another_tree_are_refused(self):
        images, votes, mask = self.galaxies(5, 0)
        with pytest.raises(DataError, match="not of small"):
            VoteJudge(1, TREE, width=8).fit(images, votes, mask)
