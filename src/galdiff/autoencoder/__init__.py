"""Autoencoders: pixels to a latent posterior and back, with the sky noise."""

from galdiff.autoencoder.grain import Grain, starlet
from galdiff.autoencoder.kl import PARTS, Autoencoder, Decoded
from galdiff.autoencoder.loss import AutoencoderLoss, gradient_loss
from galdiff.autoencoder.posterior import LatentPosterior

__all__ = ["PARTS", "Autoencoder", "AutoencoderLoss", "Decoded", "Grain", "LatentPosterior", "gradient_loss", "starlet"]
