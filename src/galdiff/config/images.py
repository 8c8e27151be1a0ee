"""Whether the autoencoder of a catalog file can have the images, which only the data say everything of."""

from __future__ import annotations

from galdiff.config.coders import AutoencoderSpec
from galdiff.config.ready import IdentitySpec, PretrainedSpec
from galdiff.errors import CatalogFileError, GaldiffError

__all__ = ["check_autoencoder"]


def check_autoencoder(spec: AutoencoderSpec | IdentitySpec | PretrainedSpec, *, bands: int, size: int) -> None:
    """Raise a `CatalogFileError` with the reason where the autoencoder cannot have the images.

    Parameters
    ----------
    spec : section
        The section ``autoencoder``.
    bands, size : int
        Bands and side of the images.
    """
    if isinstance(spec, AutoencoderSpec):
        if misfit := spec.misfit(size):
            raise CatalogFileError(misfit[1], where=f"autoencoder.{misfit[0]}")
    elif isinstance(spec, PretrainedSpec):
        from galdiff.autoencoder.pretrained import find_pretrained

        try:
            config = find_pretrained(spec.folder, bands)[1]
        except GaldiffError as error:
            raise CatalogFileError(str(error), where="autoencoder.folder") from error
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        if size % factor:
            message = f"the downsampling, {factor}, does not divide the side of the images, {size}"
            raise CatalogFileError(message, where="autoencoder.folder")
