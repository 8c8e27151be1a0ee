"""Autoencoders: pixels to a latent posterior and back, with the sky noise."""

from galdiff.autoencoder.base import PARTS, Autoencoder, SkyAutoencoder
from galdiff.autoencoder.decoded import Decoded, DecodedSky
from galdiff.autoencoder.fsq import FSQAutoencoder
from galdiff.autoencoder.grain import Grain, starlet
from galdiff.autoencoder.identity import IdentityAutoencoder
from galdiff.autoencoder.kinds import KINDS, build_autoencoder, load_autoencoder, weights_hash
from galdiff.autoencoder.kl import KLAutoencoder
from galdiff.autoencoder.loss import AutoencoderLoss, gradient_loss
from galdiff.autoencoder.posterior import LatentPosterior
from galdiff.autoencoder.pretrained import PretrainedAutoencoder
from galdiff.autoencoder.vq import VQAutoencoder

__all__ = [
    "KINDS",
    "PARTS",
    "Autoencoder",
    "AutoencoderLoss",
    "Decoded",
    "DecodedSky",
    "FSQAutoencoder",
    "Grain",
    "IdentityAutoencoder",
    "KLAutoencoder",
    "LatentPosterior",
    "PretrainedAutoencoder",
    "SkyAutoencoder",
    "VQAutoencoder",
    "build_autoencoder",
    "gradient_loss",
    "load_autoencoder",
    "starlet",
    "weights_hash",
]
