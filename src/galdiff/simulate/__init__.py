"""Simulated galaxies, with their truth and votes, in the files of Galaxy Zoo 2."""

from galdiff.simulate.galaxies import simulate_galaxies
from galdiff.simulate.gz2_files import write_gz2

__all__ = ["simulate_galaxies", "write_gz2"]
