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
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from galdiff.errors import GaldiffError
from galdiff.memory import freed_memory_kept
from galdiff.progress import stage_progress
from galdiff.randomness import permutation
from galdiff.training.averaging import PowerAverage, build_snapshots
from galdiff.training.checkpoint import fault, load_latest, save_checkpoint
from galdiff.training.log import append_metrics, describe_step, name_rows, rewind_metrics
from galdiff.training.rate import rate_factor
from galdiff.training.signals import Interrupted, signals
from galdiff.training.state import TrainingState

__all__ = ["Interrupted", "Result", "Task", "train"]

_SHOWN = 4


class Task(Protocol):
    """What the engine needs of a trainer.

    A task may also have

    - ``order(seed, epoch)``, whose slices are the rows of an epoch, by default a permutation of all rows;
    - ``ids``, an array of what the rows are called;
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
    trained = [[p for p in part.parameters() if p.requires_grad] for part, _ in parts]
    optimizers = [torch.optim.AdamW(p, 1.0, betas=betas, weight_decay=weight_decay, fused=True) for p in trained]
    state = TrainingState(model, optimizers, ema)
    found = load_latest(folder)
    if found:
        state.load(*found)
    snapshots = build_snapshots(ema, folder / "snapshots")
    if snapshots:
        snapshots.rewind(state.images)
    if metrics:
        rewind_metrics(metrics, stage, state.images)
    sums: dict[str, Tensor] = {}
    order: dict[int, Any] = {}
    order_of = getattr(task, "order", lambda seed, e: torch.from_numpy(permutation(seed, e, task.rows)))
    begun, begun_seconds = time.monotonic(), state.seconds
    logged, logged_steps, logged_skipped = begun, 0, float(state.skipped)
    logged_images = state.images
    steps: list[tuple[range, Tensor]] = []  # since the last log line, with whether their gradient was finite

    def elapsed() -> float:
        return begun_seconds + time.monotonic() - begun

    def progress() -> float:
        return min(1.0, elapsed() / budget if budget else state.images / images)

    def spent() -> bool:
        if early_stopping and state.worse_in_a_row >= early_stopping:
            return True
        return state.images >= images if budget is None else elapsed() >= budget

    def rows_at(positions: range) -> Tensor:
        epochs = range(positions[0] // task.rows, positions[-1] // task.rows + 1)
        for e in [e for e in order if e not in epochs]:
            del order[e]
        for e in [e for e in epochs if e not in order]:
            order[e] = order_of(seed, e)
        spans = [slice(max(0, positions.start - e * task.rows), positions.stop - e * task.rows) for e in epochs]
        return torch.cat([order[e][span] for e, span in zip(epochs, spans, strict=True)])

    def find_bad() -> list[dict[str, Any]]:
        finite = torch.stack([ok for _, ok in steps]).tolist()
        skipped = [positions for (positions, _), ok in zip(steps, finite, strict=True) if not ok]
        ids = getattr(task, "ids", None)
        return [describe_step(at.start // batch, at, rows_at(at), ids) for at in skipped[-_SHOWN:]]

    def mark() -> int:
        count = snapshots.count if snapshots else 0
        return int(count * progress()) if budget else count * state.images // images

    def save() -> None:
        state.seconds = elapsed()
        save_checkpoint(folder, state.images, state.tensors(), {**state.meta(), "stage": stage})

    def log(*, last: bool) -> None:
        nonlocal logged, logged_steps, logged_skipped, logged_images
        now, skipped = time.monotonic(), float(state.skipped)
        good = logged_steps - (skipped - logged_skipped)
        figures = {name: float(total) / good for name, total in sums.items()} if good else {}
        line = {
            "stage": stage,
            "images": state.images,
            **figures,
            "learning_rate": optimizers[0].param_groups[0]["lr"],
            "images_per_second": round((state.images - logged_images) / max(1e-9, now - logged), 2),
            "seconds": round(elapsed(), 3),
            "skipped_steps": int(skipped),
        }
        if skipped > logged_skipped:
            line["skipped_rows"] = find_bad()
        steps.clear()
        if metrics:
            append_metrics(metrics, line)
            fault("after-log")
        bar.update(0, **{name: value for name, value in figures.items() if name == "loss"})
        # A whole training that was skipped is a failure however short it was.
        if float(state.skipped_in_a_row) >= (min(max_skipped, -(-state.images // batch)) if last else max_skipped):
            remedy = "Lower the learning rate, or look for bad values in the images; the last checkpoint is good"
            last_one = name_rows(line["skipped_rows"][-1])
            message = f"{stage}: {int(skipped)} steps had non-finite gradients, the last {last_one}"
            raise GaldiffError(message, where=folder, remedy=remedy)
        sums.clear()
        logged, logged_steps, logged_skipped, logged_images = time.monotonic(), 0, skipped, state.images

    def note(look: Callable[..., Mapping[str, Any] | None], *arguments: Any, prefix: str = "") -> dict[str, Any]:
        """Log what a look at the averaged weights finds."""
        own = [p.detach().clone() for p in state.parameters]
        with torch.no_grad():
            torch._foreach_copy_(state.parameters, state.average.main)
            model.eval()
            found = {f"{prefix}{name}": value for name, value in (look(*arguments) or {}).items()}
            model.train()
            torch._foreach_copy_(state.parameters, own)
        if metrics and found:
            append_metrics(metrics, {"stage": stage, "images": state.images, **found})
        return found

    plot, validate = getattr(task, "plot", None), getattr(task, "validate", None)
    after_step = getattr(task, "after_step", lambda finite: None)
    on_cpu = freed_memory_kept() if device.type == "cpu" else nullcontext()
    with on_cpu, stage_progress(stage, total=images, unit="images", done=state.images) as bar, signals() as caught:
        finished, marked = spent(), mark()
        while not finished:
            size = batch if budget else min(batch, images - state.images)
            positions = range(state.images, state.images + size)
            step = state.images // batch
            factor = rate_factor(progress(), state.images, warmup_images, decay, decay_start)
            for optimizer, (_, share) in zip(optimizers, parts, strict=True):
                optimizer.param_groups[0]["lr"] = learning_rate * factor * share
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss, figures = task.loss(rows_at(positions), positions)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grads = [[p.grad for p in part if p.grad is not None] for part in trained]
            norms = [torch.nn.utils.get_total_norm(part, foreach=True) for part in grads if part]
            finite = torch.isfinite(torch.stack(norms)).all().float()
            active = [optimizer for optimizer, part in zip(optimizers, grads, strict=True) if part]
            for optimizer, norm in zip(active, norms, strict=True):
                # Clipped by the optimizer itself, which divides by the scale in the pass that it makes anyway.
                optimizer.grad_scale = (norm / clip).clamp(min=1.0)  # type: ignore[attr-defined]
                optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
                optimizer.step()
            after_step(finite)
            with torch.no_grad():
                # A skipped step is one that changed nothing: its weights are averaged like any others.
                state.average.update(state.parameters, step)
                state.skipped += 1 - finite
                state.skipped_in_a_row.add_(1).mul_(1 - finite)
                for name, value in {"loss": loss, **figures}.items():
                    value = value.detach().float()
                    sums[name] = sums.get(name, torch.zeros_like(value)) + torch.where(finite > 0, value, 0.0)
            before, state.images = state.images, state.images + size
            logged_steps += 1
            steps.append((positions, finite))
            if budget:
                bar.total = round(state.images / progress())  # what the time will come to at the rate so far
            bar.update(size)
            finished = spent()  # once a step: what ends the loop is what is logged and saved as its end
            if validate and validate_every and (before // validate_every < state.images // validate_every or finished):
                state.judge(note(validate, prefix="validation_")["validation_loss"])
                finished = finished or spent()
            if time.monotonic() - logged >= log_every or finished:
                log(last=finished)
            if plot and plot_every and (before // plot_every < state.images // plot_every or finished):
                note(plot, folder, state.images)
            if snapshots and isinstance(state.average, PowerAverage) and (mark() > marked or finished):
                marked = mark()
                snapshots.save(state.average, state.names, images=state.images, step=step + 1)
            if before // save_every < state.images // save_every or finished or caught:
                save()
            if caught:
                raise Interrupted(130 if caught[0] == signal.SIGINT else 75)
    model.eval()
    return Result(state.averaged(), state.images, state.seconds, int(state.skipped), *state.best())
