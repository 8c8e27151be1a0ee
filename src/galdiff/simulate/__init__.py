"""Simulated galaxies and lenses, in the real files' formats."""
