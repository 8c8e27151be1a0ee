"""Plots and the static report."""

from galdiff.report.page import write_report
from galdiff.report.plots import grid, render, save_grid

__all__ = ["grid", "render", "save_grid", "write_report"]
