"""The stages of a run, in the order of the flow, and what each of them writes."""

__all__ = ["ARTIFACTS", "STAGES"]

ARTIFACTS: dict[str, tuple[str, ...]] = {
    "cutouts": ("cutouts.zarr", "cutouts.zarr.journal", "cutouts.skipped.jsonl", "simulated"),
    "autoencoder": ("autoencoder",),
    "latents": ("latents.zarr", "latents.zarr.journal"),
    "denoiser": ("denoiser",),
    "samples": ("samples.zarr",),
    "evaluation": ("evaluation.json", "evaluation.zarr", "encoder"),
    "report": ("report.html",),
}
"""What every stage writes into the run directory."""

STAGES = tuple(ARTIFACTS)
"""Names of the stages."""
