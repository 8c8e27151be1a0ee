"""Killed at any moment and run again, a training ends with the same weights, bit for bit."""

import multiprocessing
import os
import signal
import time

import pytest
import safetensors.torch
import torch
from test_engine import Toy

from galdiff.progress import quiet
from galdiff.training import load_latest, read_metrics, train

FAULTS = ["before-write", "mid-write", "after-rename", "after-prune", "after-log"]
IMAGES, BATCH, SAVE_EVERY = 200, 8, 40


def session(folder, fault, pause):
    """Train in a process of its own until the end, or until it is killed."""
    torch.set_num_threads(1)
    os.environ.pop("GALDIFF_FAULT", None)
    if fault:
        os.environ["GALDIFF_FAULT"] = fault

    def wait(step, loss):
        time.sleep(pause)
        return loss

    with quiet():
        result = train(
            Toy(hook=wait),
            folder,
            images=IMAGES,
            batch=BATCH,
            seed=5,
            learning_rate=1e-2,
            warmup_images=20,
            save_every=SAVE_EVERY,
            metrics=folder / "metrics.jsonl",
            log_every=0.0,
        )
    average = {name: value.contiguous() for name, value in result.ema_state.items()}
    safetensors.torch.save_file(average, folder / "ema.safetensors")


@pytest.fixture(scope="module")
def start():
    """Start a session; the server that forks it has imported torch once for all."""
    context = multiprocessing.get_context("forkserver")
    # All that a session imports: the optimizer would import the last one when it is first used.
    context.set_forkserver_preload(["galdiff.training", "hypothesis", "pytest", "torch._dynamo"])

    def begin(folder, fault=None, pause=0.0):
        folder.mkdir(exist_ok=True)
        process = context.Process(target=session, args=(folder, fault, pause))
        process.start()
        return process

    return begin


def outcome(process):
    process.join(60)
    code = process.exitcode
    process.close()
    return code


def end_state(folder):
    """Weights, average, moments and position at the end, and the figures that do not depend on the clock."""
    tensors, meta = load_latest(folder)
    lines = read_metrics(folder / "metrics.jsonl")
    figures = [{k: line[k] for k in ("images", "loss", "twice", "learning_rate", "skipped_steps")} for line in lines]
    return tensors, safetensors.torch.load_file(folder / "ema.safetensors"), meta["images"], figures


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    assert outcome(start(folder)) == 0
    return end_state(folder)


def check(folder, expected):
    got = end_state(folder)
    for ours, theirs in zip(got[:2], expected[:2], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert got[2:] == expected[2:]
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("point", FAULTS)
def test_killed_at_a_named_point(start, uninterrupted, tmp_path, point):
    assert outcome(start(tmp_path, point)) == -signal.SIGKILL
    assert outcome(start(tmp_path)) == 0
    check(tmp_path, uninterrupted)


def test_killed_at_every_save_of_one_training(start, uninterrupted, tmp_path):
    codes = []
    while not codes or codes[-1] != 0:
        codes.append(outcome(start(tmp_path, "after-rename")))
        assert len(codes) <= IMAGES // SAVE_EVERY + 1
    assert codes == [-signal.SIGKILL] * (IMAGES // SAVE_EVERY) + [0]
    check(tmp_path, uninterrupted)


def test_killed_at_random_moments(start, uninterrupted, tmp_path):
    random = torch.Generator().manual_seed(4)
    kills = 0
    for _ in range(6):
        process = start(tmp_path, pause=0.03)
        time.sleep(0.05 + 0.35 * float(torch.rand((), generator=random)))
        process.kill()
        kills += outcome(process) == -signal.SIGKILL
    assert kills
    assert outcome(start(tmp_path)) == 0
    check(tmp_path, uninterrupted)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(start, uninterrupted, tmp_path):
    assert outcome(start(tmp_path, "after-prune")) == -signal.SIGKILL
    assert outcome(start(tmp_path, "after-prune")) == -signal.SIGKILL
    newest = max(tmp_path.glob("checkpoint-*"))
    data = newest.read_bytes()
    newest.write_bytes(data[:-100] + bytes([data[-100] ^ 4]) + data[-99:])
    assert outcome(start(tmp_path)) == 0
    check(tmp_path, uninterrupted)
