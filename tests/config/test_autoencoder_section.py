"""The autoencoder's section: what it passes on, and what it refuses."""

import pytest
from pydantic import ValidationError

from galdiff.autoencoder import AutoencoderLoss
from galdiff.config import load
from galdiff.config.build import fit_settings
from galdiff.config.coders import AutoencoderSpec
from galdiff.errors import CatalogFileError
from galdiff.pipeline.run import _lasting


def test_the_defaults_are_those_of_earlier_records():
    """Runs that were begun before there were more options go on."""
    settings = AutoencoderSpec().settings()
    assert set(settings) == {"model", "loss", "training"}
    assert settings["loss"] == {"kl": 1e-3, "gradient": 0.5, "grain": 0.03}
    assert "validate_every" not in _lasting(settings)["training"]
    assert AutoencoderLoss(**settings["loss"]) == AutoencoderLoss()


def test_options_are_passed_on():
    given = {"pixel": "huber", "kl_warmup_images": 10, "free_bits": 0.1, "chi2": 0.2, "dihedral": False}
    given |= {"scale_equivariance": 0.3, "adversarial": 0.4, "adversarial_start": 50}
    spec = AutoencoderSpec(**given, discriminator_width=16, keep="best", early_stopping=3, validate_every=400)
    settings = spec.settings()
    assert AutoencoderLoss(**settings["loss"]) == AutoencoderLoss(**given)
    assert (settings["keep"], settings["discriminator"]) == ("best", {"width": 16})
    assert settings["training"]["early_stopping"] == 3
    assert _lasting(settings)["training"]["validate_every"] == 400  # it decides what comes out


@pytest.mark.parametrize("stray", [{"adversarial_start": 10}, {"discriminator_width": 8}])
def test_options_of_an_adversary_that_is_not_there(stray):
    with pytest.raises(ValidationError, match="says nothing where adversarial is 0"):
        AutoencoderSpec(**stray)


def test_halved_latents_have_whole_pixels():
    size = {"data.simulate.size": 24, "data.size": 24}
    assert load("quickstart", size).autoencoder.factor == 8
    with pytest.raises(CatalogFileError, match="halves latents of 3 pixels"):
        load("quickstart", {**size, "autoencoder.scale_equivariance": 0.2})
    with pytest.raises(CatalogFileError, match=r"autoencoder\.scale_equivariance: halves latents of 7 pixels"):
        fit_settings({"autoencoder": {"scale_equivariance": 0.2}}, bands=3, size=56)
