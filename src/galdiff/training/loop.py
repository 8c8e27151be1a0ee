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

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from galdiff.errors import GaldiffError
from galdiff.memory import keep_freed_memory
from galdiff.progress import stage_progress
from galdiff.randomness import permutation
from galdiff.training.averaging import PowerAverage, build_average, build_snapshots
from galdiff.training.checkpoint import fault, load_latest, save_checkpoint
from galdiff.training.log import append_metrics, describe_step, name_rows, rewind_metrics

__all__ = ["Interrupted", "Result", "Task", "train"]

_SHOWN_STEPS = 4


class Task(Protocol):
    """What the engine needs of a trainer.

    A task may also have ``plot(folder, images)``, called every ``plot_every`` images with averaged weights,
    ``order(seed, epoch)``, whose slices are the rows of an epoch, by default a permutation of all rows, and ``ids``,
    an array of what the rows are called.
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


class Interrupted(SystemExit):
    """A signal asked to stop; a checkpoint was saved. Exit code 75 (try again), 130 for a keyboard interrupt."""


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes
    ----------
    ema_state : dict
        Averaged weights and the buffers: a state dict of the model.
    images, seconds, skipped_steps
        Totals over all sessions.
    """

    ema_state: dict[str, Tensor]
    images: int
    seconds: float
    skipped_steps: int


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals that ask to stop; the handler sets a flag and nothing else."""
    caught: list[int] = []
    old = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        try:
            old[number] = signal.signal(number, lambda number, _: caught.append(number))
        except ValueError:  # not the main thread: its owner handles signals
            break
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _rate(progress: float, images: int, warmup: int, decay: str, start: float) -> float:
    """Factor of the learning rate at a progress in [0, 1]."""
    factor = min(1.0, (images + 1) / warmup) if warmup else 1.0
    if decay == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * progress))
    elif decay == "linear":
        factor *= min(1.0, (1 - progress) / (1 - start))
    return factor


class _State:
    """Everything that a checkpoint holds."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, ema: float | Mapping[str, Any]) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.average = build_average(ema, self.parameters)
        self.ema = self.average.main
        self.images, self.seconds = 0, 0.0
        self.skipped = torch.zeros((), device=self.parameters[0].device)
        self.skipped_in_a_row = torch.zeros_like(self.skipped)

    def tensors(self) -> dict[str, Tensor]:
        out = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for trace, averages in self.average.traces.items():
            out |= {f"{trace}.{name}": value for name, value in zip(self.names, averages, strict=True)}
        for name, p in zip(self.names, self.parameters, strict=True):
            for key, value in self.optimizer.state[p].items():
                out[f"optimizer.{key}.{name}"] = value
        return {**out, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def load(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for trace, averages in self.average.traces.items():
            for name, average in zip(self.names, averages, strict=True):
                average.copy_(tensors[f"{trace}.{name}"])
        for name, p in zip(self.names, self.parameters, strict=True):
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors[f"optimizer.{key}.{name}"].to(p.device)
                if key != "step":
                    value = value.contiguous(memory_format=_format(p))
                self.optimizer.state[p][key] = value
        self.skipped.copy_(tensors["skipped"])
        self.skipped_in_a_row.copy_(tensors["skipped_in_a_row"])
        self.images, self.seconds = meta["images"], meta["seconds"]

    def ema_state(self) -> dict[str, Tensor]:
        averaged = dict(zip(self.names, self.ema, strict=True))
        return {k: averaged.get(k, v).detach().clone() for k, v in self.model.state_dict().items()}


def _format(p: Tensor) -> torch.memory_format:
    channels_last = p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


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
    save_every, plot_every : int
        Images between checkpoints and between pictures.
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
    if device.type == "cpu":
        keep_freed_memory()
    model = task.model.train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
    )
    state = _State(model, optimizer, ema)
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
        return [describe_step(at.start // batch, at, rows_at(at), ids) for at in skipped[-_SHOWN_STEPS:]]

    def mark() -> int:
        count = snapshots.count if snapshots else 0
        return int(count * progress()) if budget else count * state.images // images

    def save() -> None:
        state.seconds = elapsed()
        save_checkpoint(folder, state.images, state.tensors(), {"seconds": state.seconds, "stage": stage})

    def log(*, last: bool) -> None:
        nonlocal logged, logged_steps, logged_skipped, logged_images
        now, skipped = time.monotonic(), float(state.skipped)
        good = logged_steps - (skipped - logged_skipped)
        figures = {name: float(total) / good for name, total in sums.items()} if good else {}
        line = {
            "stage": stage,
            "images": state.images,
            **figures,
            "learning_rate": optimizer.param_groups[0]["lr"],
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

    def plot() -> None:
        draw = getattr(task, "plot", None)
        if draw is None:
            return
        own = [p.detach().clone() for p in state.parameters]
        with torch.no_grad():
            torch._foreach_copy_(state.parameters, state.ema)
            model.eval()
            draw(folder, state.images)
            model.train()
            torch._foreach_copy_(state.parameters, own)

    with stage_progress(stage, total=images, unit="images", done=state.images) as bar, _signals() as caught:
        finished, marked = spent(), mark()
        while not finished:
            size = batch if budget else min(batch, images - state.images)
            positions = range(state.images, state.images + size)
            step = state.images // batch
            factor = _rate(progress(), state.images, warmup_images, decay, decay_start)
            optimizer.param_groups[0]["lr"] = learning_rate * factor
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss, figures = task.loss(rows_at(positions), positions)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grads = [p.grad for p in state.parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads, foreach=True)
            finite = torch.isfinite(norm).float()
            # Clipped by the optimizer itself, which divides by the scale in the pass that it makes anyway.
            optimizer.grad_scale = (norm / clip).clamp(min=1.0)  # type: ignore[attr-defined]
            optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
            optimizer.step()
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
            if time.monotonic() - logged >= log_every or finished:
                log(last=finished)
            if plot_every and (before // plot_every < state.images // plot_every or finished):
                plot()
            if snapshots and isinstance(state.average, PowerAverage) and (mark() > marked or finished):
                marked = mark()
                snapshots.save(state.average, state.names, images=state.images, step=step + 1)
            if before // save_every < state.images // save_every or finished or caught:
                save()
            if caught and not finished:
                raise Interrupted(130 if caught[0] == signal.SIGINT else 75)
    model.eval()
    return Result(state.ema_state(), state.images, state.seconds, int(state.skipped))
