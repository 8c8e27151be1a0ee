"""Judges of a run: they learn what the images show, and see where samples do not show what was asked for."""

from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch

from galdiff.data.stretch import Linear
from galdiff.judges import Classifier, MorphologyEncoder
from galdiff.model import ImageFormat
from galdiff.pipeline import judged
from galdiff.pipeline.judged import EncoderFeatures, Judging, is_lenses
from galdiff.pipeline.lenses import asked_rings
from galdiff.pipeline.sets import Labeled
from galdiff.schema.conditions import Class, Conditions, ConditionSchema, Scalar, Votes
from galdiff.schema.trees import Answer, Question, QuestionTree

TREE = QuestionTree("shapes", (Question("shape", (Answer("round", "round"), Answer("long", "long"))),))
SCHEMA = ConditionSchema([Votes("votes", tree=TREE)])
FORMAT = ImageFormat(("g",), 16, "display", Linear(low=0.0, high=1.0))


def galaxies(n, seed, *, asked=None):
    """Images as bright as the share of votes for the second answer; what is asked may be something else."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0, 1, n)
    images = share[:, None, None, None] + 0.02 * rng.normal(size=(n, 1, 16, 16))
    long = rng.binomial(40, share if asked is None else asked(share))
    votes = torch.from_numpy(np.stack([40 - long, long], axis=1)).float()
    known = Conditions({"votes": votes}, {"votes": torch.ones(n, 1, dtype=torch.bool)})
    return Labeled(images.astype(np.float32), known)


class Reader:
    """A judge that knows what the images show; that a network learns it is tested with the judges."""

    def __init__(self, bands, tree):
        assert (bands, tree) == (1, TREE)

    def fit(self, images, votes, mask, *, seed, seen):
        assert (len(images), seen) == (600, 2500)

    def predict(self, images):
        share = images.mean(axis=(1, 2, 3)).clip(0.01, 0.99)
        return 30.0 * np.stack([1 - share, share], axis=1)


@pytest.fixture(scope="module")
def sets():
    return galaxies(600, 0), galaxies(200, 1)


def test_votes_that_are_there_are_found_and_others_are_not(sets, monkeypatch):
    monkeypatch.setattr(judged, "VoteJudge", Reader)
    right = Judging(FORMAT, SCHEMA, *sets, galaxies(200, 2)).votes(2500, draws=10)
    figures = {f.name: f for f in right.figures}
    slope = figures["votes_slope[shape]"]
    assert slope.floor > 0.6
    assert slope.verdict(4.0) == "pass"
    assert (slope.freedom, figures["votes_found[long]"].freedom) == (9, 199)
    curves = right.curves
    assert curves["votes_title"].values.tolist() == ["shape"]
    assert curves["votes_found"].dims == ("question", "bin")
    assert np.abs(curves["votes_found"] - curves["votes_found_real"]).max() < 0.15
    asked = curves["votes_asked"].to_numpy()[0]
    assert (np.diff(asked) > 0).all()
    assert ((asked * 10).astype(int).clip(max=9) == np.arange(10)).all()
    wrong = Judging(FORMAT, SCHEMA, *sets, galaxies(200, 2, asked=lambda share: 1 - share)).votes(2500, draws=10)
    slope = {f.name: f for f in wrong.figures}["votes_slope[shape]"]
    assert slope.value < -0.5
    assert slope.verdict(4.0) != "pass"


def test_an_encoder_is_kept_and_is_a_feature_space(sets, tmp_path):
    space = Judging(FORMAT, SCHEMA, *sets, sets[1]).encoder(320, tmp_path / "encoder")
    assert space.name == "morphology-encoder"
    space.fit(sets[0].images, "display")
    found = space.measure(sets[1].images)
    assert found.shape == (200, space.width)
    again = EncoderFeatures(MorphologyEncoder.load(tmp_path / "encoder"), FORMAT, "")
    np.testing.assert_array_equal(again.measure(sets[1].images), found)
    assert "600 training images" in space.protocol


def test_few_images_train_no_judge(sets):
    judging = Judging(FORMAT, SCHEMA, sets[1], sets[1], sets[1])
    assert [f.status for f in judging.votes(100).figures] == ["too few"]
    assert [f.status for f in judging.too_few_to_encode()] == ["too few"]
    assert not judging.classes().figures


def test_lenses_are_known_by_their_classes():
    assert is_lenses(ConditionSchema([Class("substructure", classes=("no_sub", "cdm"))]))
    assert not is_lenses(ConditionSchema([Class("kind", classes=("spiral", "smooth"))]))
    assert not is_lenses(SCHEMA)


class TestLenses:
    """Rings whose radii were asked for, of a class by their brightness."""

    SCHEMA = ConditionSchema(
        [
            Class("substructure", ("no_sub", "cdm")),
            Scalar("theta_e", "arcsec", 1.0, 0.2),
            Scalar("turn", "deg", angle=True),
        ]
    )
    FORMAT = ImageFormat(("flux",), 32, "count", Linear(low=0.0, high=1.0))

    def lenses(self, n, seed, *, asked=None):
        rng = np.random.default_rng(seed)
        theta, label = rng.uniform(0.7, 1.4, n), rng.integers(0, 2, n)
        r = np.hypot(*(np.mgrid[:32, :32] - 15.5))
        images = (1 + label)[:, None, None] * np.exp(-0.5 * (r - 8 * theta[:, None, None]) ** 2 / 4)
        images = images + 0.05 * rng.normal(size=images.shape)
        values = {
            "substructure": torch.from_numpy(label),
            "theta_e": torch.from_numpy(theta if asked is None else asked(theta)).float(),
            "turn": torch.zeros(n),
        }
        known = Conditions(values, {name: torch.ones(n, dtype=torch.bool) for name in values})
        return Labeled(images[:, None].astype(np.float32), known)

    def judging(self, n=600, **options):
        return Judging(self.FORMAT, self.SCHEMA, self.lenses(n, 0), self.lenses(200, 1), self.lenses(200, 2, **options))

    def test_rings_are_as_large_as_was_asked_for(self):
        figures = {f.name: f for f in asked_rings(self.judging())}
        slope = figures["recovered_slope[theta_e by ring]"]
        assert slope.value == pytest.approx(1, abs=0.02)
        assert "scale of the median training lens" in slope.protocol
        assert {f.verdict(4.0) for f in figures.values()} == {"pass"}
        wrong = {f.name: f for f in asked_rings(self.judging(asked=lambda theta: 2.1 - theta))}
        assert wrong["recovered_slope[theta_e by ring]"].value < -0.9

    def test_a_known_pixel_scale_is_taken(self):
        judging = replace(self.judging(), image_format=replace(self.FORMAT, pixel_scale=0.25))
        bias = {f.name: f for f in asked_rings(judging)}["recovered_bias[theta_e by ring]"]
        assert bias.value == pytest.approx(1.0, abs=0.2)  # rings of 8 pixels are 2" and not 1"
        assert "pixel scale of the data" in bias.protocol

    def test_other_conditions_have_no_rings(self, sets):
        assert not asked_rings(Judging(FORMAT, SCHEMA, *sets, sets[1]))

    def test_numbers_are_read_but_angles_are_not(self):
        judged = self.judging().scalars(640)
        assert [f.name for f in judged.figures] == [f"recovered_{s}[theta_e]" for s in ("slope", "bias", "scatter")]
        asked, found = (judged.curves[f"numbers_{name}"].to_numpy() for name in ("asked", "found"))
        assert asked.shape == found.shape == (1, 10)
        assert np.isfinite(found).all()
        assert (np.diff(asked) > 0).all()
        assert asked.mean() == pytest.approx(self.judging().generated.numbers("theta_e").mean(), rel=1e-3)
        few = self.judging(100).scalars(640).figures
        assert [(f.name, f.status) for f in few] == [("recovered_slope[theta_e]", "too few")]

    def test_classes_are_carried_over_to_real_images(self, monkeypatch):
        monkeypatch.setattr(Classifier, "fit", partialmethod(Classifier.fit, seen=640))
        figures = {f.name: f for f in self.judging().classes(transfer=320).figures}
        assert {"class_auc", "class_calibration_error", "transfer_accuracy", "transfer_auc"} <= set(figures)
        assert figures["transfer_auc"].verdict(4.0) in ("pass", "look")
        assert "transfer_auc" not in {f.name for f in self.judging().classes().figures}

    @pytest.mark.parametrize(
        ("few", "n", "note"), [("generated", 30, "30 images, 50 needed"), ("train", 200, "30 training images, ")]
    )
    def test_a_judge_says_which_images_are_too_few(self, few, n, note):
        judging = self.judging()
        judging = replace(judging, **{few: getattr(judging, few)[np.arange(30)]})
        (figure,) = judging.classes().figures
        assert (figure.status, figure.n) == ("too few", n)
        assert figure.note.startswith(note)
        assert figure.note.endswith(" needed")

    def test_unknown_classes_are_not_the_first_one(self, monkeypatch):
        seen = {}

        def fit(judge, images, labels, **options):
            seen["lesson"] = (len(images), np.bincount(labels).tolist())
            return judge

        monkeypatch.setattr(Classifier, "fit", fit)
        judging = self.judging()
        name = next(f.name for f in judging.schema.fields if isinstance(f, Class))
        for part in (judging.train, judging.generated, judging.real):
            part.conditions.masks[name][::2] = False
            part.conditions.values[name][::2] = 0
        kept = np.bincount(judging.train.conditions.values[name][1::2].numpy()).tolist()
        figures = judging.classes().figures
        assert seen["lesson"] == (300, kept)
        assert {f.n for f in figures} == {100}

    def test_without_judges_unknown_values_are_nan(self):
        part = self.lenses(5, 0)
        part.conditions.masks["theta_e"][2] = False
        assert np.isnan(part.numbers("theta_e")).tolist() == [False, False, True, False, False]
