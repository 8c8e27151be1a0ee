"""Plots, the static report of a run, and the comparison of several."""

from galdiff.report.compare import compare
from galdiff.report.files import read_figures
from galdiff.report.page import write_report
from galdiff.report.plots import grid, render, save_grid
from galdiff.report.verdicts import verdict_table

__all__ = ["compare", "grid", "read_figures", "render", "save_grid", "verdict_table", "write_report"]
