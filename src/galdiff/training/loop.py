r"""The engine: one loop for every trainer.

Progress is a count of images. Step k sees the global sample positions :math:`kB` to :math:`kB + B - 1`; position p
shows row :math:`\pi_{\lfloor p / n \rfloor}(p \bmod n)` of the training split, with :math:`\pi_e` the permutation of
epoch e, and everything random in a task is a function of (seed, position). There is no state but weights, moments,
averages and the position, so that a killed run goes on to the same bits.

Between two log lines nothing waits for the device: losses are summed there, and a step whose gradient is not finite is
skipped there, by the optimizer's own ``found_inf``, which leaves weights, moments and step count untouched. Which steps
those were is read at the log line; what they were shown follows from their positions.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from galdiff.errors import GaldiffError
from galdiff.memory import freed_memory_kept
from galdiff.progress import say, stage_progress
from galdiff.training.averaging import PowerAverage, Snapshots, build_snapshots
from galdiff.training.checkpoint import load_latest, save_checkpoint
from galdiff.training.length import Length
from galdiff.training.log import append_metrics, name_rows, rewind_metrics
from galdiff.training.order import RowOrder
from galdiff.training.rate import rate_factor
from galdiff.training.signals import Interrupted, signals
from galdiff.training.state import TrainingState
from galdiff.training.steplog import StepLog

__all__ = ["Interrupted", "Result", "Task", "train"]


class Task(Protocol):
    """What the engine needs of a trainer.

    A task may also have

    - ``order(seed, epoch)``, whose slices are the rows of an epoch, by default a permutation of all rows;
    - ``ids``, what the rows are called (`galdiff.training.log.Names`), such as an array;
    - ``parts()``, modules that make up the model, each with a factor of the learning rate, whose gradients are clipped
      apart;
    - ``after_step(finite)``, called after every step with a 0-d tensor that is 0 where the step was skipped;
    - ``plot(folder, images)``, which may return figures to log, and ``validate()``, which returns figures of what is
      not trained on, ``loss`` among them, both called with averaged weights.
    """

    rows: int

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def loss(self, rows: Tensor, positions: range) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and figures to log.

        Rows (int64 ``(batch,)``) are on the CPU, where a task may keep its data; ``positions`` are their global sample
        positions.
        """


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes
    ----------
    ema_state : dict
        Averaged weights and the buffers: a state dict of the model.
    images, seconds, skipped_steps
        Totals over all sessions.
    best_state, best_images : optional
        The averaged weights of the least validation loss, and their position.
    """

    ema_state: dict[str, Tensor]
    images: int
    seconds: float
    skipped_steps: int
    best_state: dict[str, Tensor] | None = None
    best_images: int | None = None


def train(
    task: Task,
    folder: Path,
    *,
    images: int,
    batch: int,
    seed: int,
    learning_rate: float,
    warmup_images: int = 0,
    decay: str = "cosine",
    decay_start: float = 0.5,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    clip: float = 1.0,
    ema: float | Mapping[str, Any] = 0.999,
    save_every: int = 20_000,
    plot_every: int | None = None,
    validate_every: int | None = None,
    early_stopping: int | None = None,
    budget: float | None = None,
    device: torch.device | str = "cpu",
    metrics: Path | None = None,
    stage: str = "training",
    log_every: float = 5.0,
    max_skipped: int = 50,
) -> Result:
    """Train a task, or go on where it was stopped, or return at once what it gave when it is finished.

    Parameters
    ----------
    task : Task
        What is trained.
    folder : Path
        Checkpoints and pictures.
    images : int
        Length: a count of images seen.
    batch : int
        Images a step.
    seed : int
        Seed of the order of the rows.
    learning_rate : float
        Peak rate of AdamW (Loshchilov & Hutter 2019).
    warmup_images : int
        Images of linear warm-up.
    decay : {"cosine", "linear", "constant"}
        Linear: constant until ``decay_start`` of the length, then to zero.
    weight_decay, betas, clip
        AdamW's, and the largest norm of the gradient.
    ema : float or mapping
        Decay of the weight average, warmed up as ``min(ema, (1 + k) / (10 + k))`` at step k; or power-function averages
        ``{"lengths": [0.05, 0.1], "snapshots": 40, "precision": "float16"}``, of which the first is the result and the
        snapshots, in the folder ``snapshots``, give any other length afterwards (`galdiff.training.posthoc`).
    save_every, plot_every, validate_every : int
        Images between checkpoints, between pictures and between validations, of a task that has them.
    early_stopping : int, optional
        End after so many validations in a row without a smaller loss.
    budget : float, optional
        Seconds of training to spend instead of ``images``, over all sessions; exempt from bit-equality.
    device : torch.device
        Where the task's model is; on CUDA the loss is computed in bfloat16 by autocast.
    metrics : Path, optional
        ``metrics.jsonl`` to append to.
    stage : str
        Name in the metrics and the progress.
    log_every : float
        Seconds between log lines.
    max_skipped : int
        Skipped steps in a row, seen at a log line, that end the training. Log lines name what the skipped steps were
        shown, the last four of them: ``skipped_rows`` with ``step``, ``positions``, ``rows`` and, where the task has
        them, ``ids``.

    Raises
    ------
    GaldiffError
        Where the gradients stay non-finite; the last checkpoint is good.
    Interrupted
        After a signal, with a checkpoint saved.
    """
    device = torch.device(device)
    model = task.model.train()
    parts = getattr(task, "parts", lambda: [(model, 1.0)])()
    optimizers = [_build_optimizer(part, share, betas, weight_decay) for part, share in parts]
    state = TrainingState(model, optimizers, ema)
    snapshots = build_snapshots(ema, folder / "snapshots")
    _go_back(state, folder, snapshots, metrics, stage)
    order = RowOrder(task.rows, seed, getattr(task, "order", None))
    length = Length(state, images=images, budget=budget, early_stopping=early_stopping)
    steps = StepLog(state, order, stage=stage, metrics=metrics, ids=getattr(task, "ids", None))
    plot, validate = getattr(task, "plot", None), getattr(task, "validate", None)
    after_step = getattr(task, "after_step", lambda finite: None)

    def note(look: Callable[..., Mapping[str, Any] | None], *arguments: Any, prefix: str = "") -> dict[str, Any]:
        """Log what a look at the averaged weights finds."""
        with state.averages_shown():
            seen = {f"{prefix}{name}": value for name, value in (look(*arguments) or {}).items()}
        if metrics and seen:
            append_metrics(metrics, {"stage": stage, "images": state.images, **seen})
        return seen

    on_cpu = freed_memory_kept() if device.type == "cpu" else nullcontext()
    with on_cpu, stage_progress(stage, total=images, unit="images", done=state.images) as bar, signals() as caught:
        finished, marked = length.reached, length.marks(snapshots.count) if snapshots else 0
        while not finished:
            positions, step = length.batch(batch), state.images // batch
            factor = rate_factor(length.share, state.images, warmup_images, decay, decay_start)
            for group in (optimizer.param_groups[0] for optimizer in optimizers):
                group["lr"] = learning_rate * factor * group["share"]
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss, figures = task.loss(order.at(positions), positions)
            finite = _descend(loss, optimizers, clip)
            after_step(finite)
            state.follow(step, len(positions), finite)
            steps.add(step, positions, finite, {"loss": loss, **figures})
            if budget:
                bar.total = round(state.images / length.share)  # what the time will come to at the rate so far
            bar.update(len(positions))
            finished = length.reached  # once a step: what ends the loop is what is logged and saved as its end
            if validate and _due(validate_every, positions, finished):
                state.judge(note(validate, prefix="validation_")["validation_loss"])
                finished = finished or length.reached
            if steps.age >= log_every or finished:
                line = steps.write(seconds=length.seconds, learning_rate=optimizers[0].param_groups[0]["lr"])
                bar.update(0, **{name: line[name] for name in ("loss",) if name in line})
                # A whole training that was skipped is a failure however short it was.
                _refuse_many(line, state, min(max_skipped, step + 1) if finished else max_skipped, folder)
            if plot and _due(plot_every, positions, finished):
                note(plot, folder, state.images)
            if snapshots and isinstance(state.average, PowerAverage):
                marks = length.marks(snapshots.count)
                if finished or marked < marks < snapshots.count:  # the clock may pass the last one within a step
                    marked = marks
                    snapshots.save(state.average, state.names, images=state.images, step=step + 1)
            if _due(save_every, positions, finished) or caught:
                state.seconds = length.seconds
                save_checkpoint(folder, state.images, state.tensors(), {**state.meta(), "stage": stage})
            if caught:
                say(stage, f"stopped after {state.images} images, which are saved: the same command goes on from there")
                raise Interrupted(130 if caught[0] == signal.SIGINT else 75)
    model.eval()
    return Result(state.averaged(), state.images, state.seconds, int(state.skipped), *state.best())


def _build_optimizer(part: nn.Module, share: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    """Build the optimizer of a part, which goes at a share of the learning rate."""
    group = {"params": [p for p in part.parameters() if p.requires_grad], "share": share}
    return torch.optim.AdamW([group], 1.0, betas=betas, weight_decay=decay, fused=True)


def _go_back(state: TrainingState, folder: Path, snapshots: Snapshots | None, metrics: Path | None, stage: str) -> None:
    """Go back to the last checkpoint, if there is one, and drop the snapshots and log lines that came after it."""
    found = load_latest(folder)
    if found:
        state.load(*found)
    if snapshots:
        snapshots.rewind(state.images)
    if metrics:
        rewind_metrics(metrics, stage, state.images)


def _descend(loss: Tensor, optimizers: Sequence[torch.optim.Optimizer], clip: float) -> Tensor:
    """Take a step, unless a gradient is not finite; return whether it was taken, 1 or 0, without waiting for it."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    grads = [[p.grad for p in o.param_groups[0]["params"] if p.grad is not None] for o in optimizers]
    active = [(optimizer, part) for optimizer, part in zip(optimizers, grads, strict=True) if part]
    norms = [torch.nn.utils.get_total_norm(part, foreach=True) for _, part in active]
    finite = torch.isfinite(torch.stack(norms)).all().float()
    for (optimizer, _), norm in zip(active, norms, strict=True):
        # Clipped by the optimizer itself, which divides by the scale in the pass that it makes anyway.
        optimizer.grad_scale = (norm / clip).clamp(min=1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
        optimizer.step()
    return finite


def _due(every: int | None, positions: range, finished: bool) -> bool:
    """Whether a step went past a multiple of so many images, or is the last one."""
    return bool(every) and (finished or positions.start // every < positions.stop // every)  # type: ignore[operator]


def _refuse_many(line: Mapping[str, Any], state: TrainingState, limit: int, folder: Path) -> None:
    """Raise a `GaldiffError` where as many steps in a row were skipped."""
    if float(state.skipped_in_a_row) >= limit:
        remedy = "Lower the learning rate, or look for bad values in the images; the last checkpoint is good"
        last = name_rows(line["skipped_rows"][-1])
        message = f"{line['stage']}: {line['skipped_steps']} steps had non-finite gradients, the last {last}"
        raise GaldiffError(message, where=folder, remedy=remedy)
