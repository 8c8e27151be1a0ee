"""Simulated galaxies in the files of Galaxy Zoo 2 and simulated lenses in those of DeepLense, with their truth."""

from galdiff.simulate.deeplense_files import write_deeplense
from galdiff.simulate.galaxies import simulate_galaxies
from galdiff.simulate.gz2_files import write_gz2
from galdiff.simulate.lenses import simulate_lenses

__all__ = ["simulate_galaxies", "simulate_lenses", "write_deeplense", "write_gz2"]
