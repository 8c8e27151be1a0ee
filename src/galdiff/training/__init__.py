"""The engine: loop, checkpoints, averages of the weights, log."""

from galdiff.training.averaging import posthoc
from galdiff.training.checkpoint import load_latest, save_checkpoint
from galdiff.training.log import append_metrics, read_metrics, rewind_metrics
from galdiff.training.loop import Interrupted, Result, Task, train

__all__ = [
    "Interrupted",
    "Result",
    "Task",
    "append_metrics",
    "load_latest",
    "posthoc",
    "read_metrics",
    "rewind_metrics",
    "save_checkpoint",
    "train",
]
