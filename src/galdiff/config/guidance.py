"""Whether a model can be guided as a catalog file says, which its conditions decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from galdiff.errors import CatalogFileError, GaldiffError

if TYPE_CHECKING:
    from galdiff.config.spec import StagesSpec
    from galdiff.schema.conditions import ConditionSchema

__all__ = ["guidance_problems"]


def guidance_problems(spec: StagesSpec, schema: ConditionSchema) -> Iterator[CatalogFileError]:
    """Find weights of what the data do not have, and guidance by what the network never saw.

    Parameters
    ----------
    spec : StagesSpec
        The catalog file.
    schema : ConditionSchema
        Conditions of the data.
    """
    guidance = spec.sampling.guidance
    try:
        schema.weights(guidance if isinstance(guidance, dict) else {})
    except GaldiffError as error:
        yield CatalogFileError(str(error), where="sampling.guidance")
    # A single class or number is hidden from the null share alone; of several, or of the questions of votes, any are.
    single = len(schema.fields) == 1 and schema.fields[0].kind != "votes"
    if schema.fields and guidance != 1 and (spec.denoiser.null == 1 or (single and spec.denoiser.null == 0)):
        never = "without" if spec.denoiser.null == 0 else "with"
        message = f"guidance needs what the network makes of images {never} conditions, which it would never have seen"
        remedy = "Set null to 0.1 or so, or sampling.guidance: 1"
        yield CatalogFileError(message, where="denoiser.null", remedy=remedy)
