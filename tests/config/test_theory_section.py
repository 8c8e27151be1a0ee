"""The theory as a catalog file has it: options of schedules and samplers, and what does not go together."""

import math

import pytest

from galdiff.config import fit_settings, load
from galdiff.config.check import check
from galdiff.config.samples import parse_options
from galdiff.config.theory import check_options
from galdiff.diffusion import Schedule
from galdiff.diffusion.samplers import SAMPLERS
from galdiff.errors import CatalogFileError, GaldiffError


def denoiser(schedule, **more):
    return fit_settings({"denoiser": {"schedule": schedule, **more}}).denoiser


def sampling(autoencoder=None, **keys):
    kind = {} if autoencoder is None else {"autoencoder": autoencoder}
    return fit_settings({"sampling": keys, **kind}).sampling


@pytest.mark.parametrize(
    "schedule",
    [
        {"kind": "edm", "sigma_min": 0.01, "sigma_max": 40.0},
        {"kind": "cosine", "offset": 0.02},
        {"kind": "linear", "beta_min": 0.0, "beta_max": 12.0, "zero_terminal": True},
        {"kind": "sigmoid", "start": 0.0, "end": 3.0, "tau": 0.7},
    ],
    ids=lambda schedule: schedule["kind"],
)
def test_every_option_of_a_schedule_is_in_reach(schedule):
    assert Schedule.from_dict(denoiser(schedule)["schedule"]).to_dict() == schedule
    assert Schedule.from_dict(denoiser({**schedule, "shift": 2})["schedule"]).to_dict() == {**schedule, "shift": 2.0}


def test_a_schedule_is_described_by_what_was_given():
    """So that runs of before there were more options go on."""
    for kind in ("rectified_flow", "edm", "cosine", "sigmoid"):
        assert denoiser(kind)["schedule"] == {"kind": kind}
    assert denoiser("linear")["schedule"] == {"kind": "linear", "zero_terminal": False}


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"kind": "cosine", "beta_min": 0.0}, "beta_min: is an option of the schedule linear, not of cosine"),
        ({"kind": "edm", "tau": 2}, "is an option of the schedule sigmoid, not of edm"),
        ({"kind": "linear", "beta_min": 3, "beta_max": 2}, "denoiser.schedule: beta_min 3.0 and beta_max 2.0"),
        ({"kind": "edm", "sigma_max": 5}, "leaves 0.2 of the signal in the noise.*Raise sigma_max"),
        ({"kind": "edm", "shift": 0.05}, "leaves 0.25 of the signal"),
        ({"kind": "linear", "beta_max": 4}, "leaves 0.38 of the signal.*zero_terminal: true"),
        ({"kind": "edm", "sigma_min": 0.5}, "begins with 0.5 of noise in the signal.*Lower sigma_min"),
    ],
)
def test_schedules_without_sense_are_refused_with_the_reason(schedule, words):
    with pytest.raises(CatalogFileError, match=words):
        denoiser(schedule)


def test_zero_terminal_mends_an_end_that_leaves_signal():
    assert denoiser({"kind": "linear", "beta_max": 4, "zero_terminal": True})["prediction"] == "v"


@pytest.mark.parametrize(("kind", "usual"), [("edm", 0.3), ("cosine", 0.0)])
def test_noise_levels_of_training_move_with_a_shift(kind, usual):
    """A log-normal density is of noise levels: that of times moves by itself with the schedule."""
    moved = denoiser({"kind": kind, "shift": 3}, objective={"time": "log_normal"})["objective"]["location"]
    assert moved == pytest.approx(usual + math.log(3))
    given = denoiser({"kind": kind, "shift": 3}, objective={"time": "log_normal", "location": 0.7})
    assert given["objective"]["location"] == 0.7
    assert denoiser({"kind": "rectified_flow", "shift": 3})["objective"]["location"] == 0.0


class TestSampling:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_each_sampler_has_its_steps(self, sampler):
        assert sampling(sampler=sampler)["steps"] == SAMPLERS[sampler].STEPS
        assert sampling(sampler=sampler, steps=7)["steps"] == 7

    def test_the_description_says_them(self):
        from galdiff.config.theory import SamplingSpec

        described = SamplingSpec.model_fields["steps"].description
        counts = {name: str(kind.STEPS) for name, kind in SAMPLERS.items()}
        said = described.split("by default ")[1].rstrip(".").split(", ")
        # Such as "50 of euler", "ddim and sde_dpmpp_2m".
        found, count = {}, None
        for part in said:
            head, _, rest = part.partition(" of ")
            count, names = (head, rest) if rest else (count, part)
            found |= dict.fromkeys(names.split(" and "), count)
        assert found == counts

    def test_what_is_not_given_leaves_runs_as_they_were(self):
        """The key of the stage of samples is that of version one."""
        earlier = {"sampler", "steps", "grid", "eta", "noise_scale", "guidance", "interval", "rescale", "n", "asks"}
        settings = fit_settings({})
        assert settings.sampling.keys() | settings.samples.keys() == earlier
        assert not settings.sampling.keys() & settings.samples.keys()
        assert sampling()["steps"] == 12

    def test_sweeps_are_told_where_they_are_given(self):
        settings = fit_settings({"sampling": {"sweeps": {}, "n": 7}})
        assert settings.samples == {"n": 7, "asks": None, "sweeps": {}}

    @pytest.mark.parametrize(
        ("keys", "words"),
        [
            ({"shift": 2, "grid": "karras"}, "sampling: a shift of 2 is none of the grid 'karras'"),
            ({"rho": 3}, "sampling: a rho of 3 is none of the grid 'uniform'"),
            ({"sampler": "ddim", "noise_scale": 0.9}, "sampling: a noise scale of 0.9 says nothing where eta is 0"),
            ({"floor": 0}, "sampling.floor: is a level of pixels, and this denoiser sees latents"),
        ],
    )
    def test_what_does_not_go_together_is_refused_with_the_reason(self, keys, words):
        with pytest.raises(CatalogFileError, match=words):
            sampling(**keys)

    def test_what_goes_together(self):
        assert sampling(shift=2)["shift"] == 2
        assert sampling(rho=3, grid="karras")["rho"] == 3
        assert sampling(sampler="ddim", noise_scale=0.9, eta=0.5)["noise_scale"] == 0.9
        assert sampling("identity", floor=0)["floor"] == 0

    def test_a_check_finds_it_too(self, tmp_path):
        spec = load("quickstart", ["sampling.floor=0", "sampling.grid=uniform"])
        (problem,) = check(spec, tmp_path / "run", estimate=False).problems
        assert str(problem).startswith("sampling.floor: is a level of pixels")


class TestOptions:
    """What `galdiff sample --set` and `LatentDiffusion.sample(options=...)` take."""

    def test_they_are_those_of_the_section(self):
        texts = ["sampler=ddim", "eta=1", "guidance.spiral=2", "guidance.bar=1.5", "interval=[0.2, 0.9]", "grid="]
        assert parse_options(f"sampling.{text}" for text in texts) == {
            "sampler": "ddim",
            "eta": 1.0,
            "guidance": {"spiral": 2.0, "bar": 1.5},
            "interval": (0.2, 0.9),
            "grid": None,
        }

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("grid=karras", "--set grid=karras: is no option of sampling. Give sampling.NAME=VALUE"),
            ("denoiser.images=3", "--set denoiser.images=3: is no option of sampling"),
            ("sampling.n=4", "--set sampling: there is no option 'n'"),
            ("sampling.stepps=4", "did you mean 'steps'"),
            ("sampling.steps", "--set sampling.steps: an option reads sampling.name=value"),
            ("sampling.steps=2.5", "--set sampling.steps: should be a valid integer"),
            ("sampling.steps=true", "--set sampling.steps: should be a number, not True"),
            ("sampling.grid=trailing", "--set sampling.grid: should be 'uniform', 'karras' or 'logsnr'"),
            ("sampling.rescale=.nan", "--set sampling.rescale: should be a finite number"),
            ("sampling.guidance={spiral: .inf}", "--set sampling.guidance: should be a finite number"),
            ("sampling.interval=[0.2, 2]", "--set sampling.interval: should be less than or equal to 1"),
        ],
    )
    def test_mistakes_are_named(self, text, words):
        with pytest.raises(GaldiffError) as error:
            parse_options([text])
        assert words in str(error.value)

    def test_in_python_they_are_named_as_there(self):
        with pytest.raises(GaldiffError, match=r"options.interval: should be a valid tuple, not 5"):
            check_options({"interval": 5})
