"""Power-function averages: their algebra, and what is reconstructed after training against what is tracked in it."""

import math

import numpy as np
import pytest
import safetensors.torch
import torch
from damage import flip
from scipy.integrate import quad
from test_engine import Toy, flat, run, same

from galdiff.errors import CheckpointError, GaldiffError
from galdiff.training import load_latest, posthoc
from galdiff.training.averaging import (
    LONGEST,
    PowerAverage,
    Snapshots,
    exponent_of,
    inner_products,
    length_of,
    posthoc_weights,
)

POWER = {"lengths": [0.05, 0.10], "snapshots": 5, "precision": "float32"}


@pytest.mark.parametrize("length", [0.001, 0.01, 0.05, 0.10, 0.15, 0.25, LONGEST])
def test_length_and_exponent_are_inverse(length):
    assert length_of(exponent_of(length)) == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize(("length", "exponent"), [(0.05, 16.97), (0.10, 6.94)])
def test_exponents_are_the_published_ones(length, exponent):
    assert exponent_of(length) == pytest.approx(exponent, abs=0.005)


def test_the_length_is_the_standard_deviation_of_the_profile():
    g = 3.7
    mean, square = (quad(lambda x, k=k: (g + 1) * x**g * x**k, 0, 1)[0] for k in (1, 2))
    assert length_of(g) == pytest.approx(math.sqrt(square - mean**2), rel=1e-9)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.29, 1.0])
def test_impossible_lengths_are_refused(length):
    with pytest.raises(GaldiffError, match="length"):
        exponent_of(length)


def test_inner_products_are_the_integrals():
    steps, exponents = np.array([30.0, 100.0, 100.0, 55.0]), np.array([16.97, 6.94, 0.3, 2.0])

    def profile(i):
        t, g = steps[i], exponents[i]
        return lambda x: (g + 1) / t * (x / t) ** g if x <= t else 0.0

    products = inner_products(steps, exponents)
    for i in range(4):
        for j in range(4):
            a, b = profile(i), profile(j)
            numeric = quad(lambda x, a=a, b=b: a(x) * b(x), 0, min(steps[i], steps[j]))[0]
            assert products[i, j] == pytest.approx(numeric, rel=1e-7)


def test_the_trace_is_its_profile():
    """Weights that are the step number average to its mean under the profile, (g + 1) / (g + 2) t."""
    weight, n = torch.zeros(1, dtype=torch.float64), 3000
    average = PowerAverage([weight], [0.05, 0.2])
    for step in range(n):
        average.update([weight.fill_(step + 1)], step)
    for exponent, (value,) in zip(average.exponents.values(), average.traces.values(), strict=True):
        assert value.item() == pytest.approx((exponent + 1) / (exponent + 2) * n, rel=2e-3)


@pytest.fixture(scope="module")
def path():
    """A path of weights: a random walk whose steps become smaller, and a drift."""
    random, n = np.random.default_rng(0), 2000
    walk = np.cumsum(random.normal(size=(n, 32)), axis=0) * np.linspace(1, 0.05, n)[:, None] / 50
    return torch.from_numpy(walk + np.sin(np.arange(n) / 225)[:, None])


@pytest.mark.parametrize(("precision", "error"), [("float32", 4e-5), ("float16", 4e-4)])
def test_posthoc_is_the_directly_tracked_average(path, tmp_path, precision, error):
    n, wanted = len(path), [0.04, 0.05, 0.08, 0.12, 0.15]
    average, tracked = PowerAverage([path[0]], [0.05, 0.10]), PowerAverage([path[0]], wanted)
    snapshots = Snapshots(tmp_path, count=40, precision=precision)
    for step in range(n):
        average.update([path[step]], step)
        tracked.update([path[step]], step)
        if (step + 1) % (n // 40) == 0:
            snapshots.save(average, ["w"], images=8 * (step + 1), step=step + 1)
    for length, (direct,) in zip(wanted, tracked.traces.values(), strict=True):
        again = posthoc(tmp_path, length)["w"].double()
        assert (again - direct).abs().max() / path.abs().max() < error


def test_lengths_of_many_digits_are_kept_apart(tmp_path):
    weight, lengths = torch.ones(3), [1 / 13, 1 / 13 + 1e-9]
    average = PowerAverage([weight], lengths)
    assert len(average.traces) == 2
    Snapshots(tmp_path, precision="float32").save(average, ["w"], images=8, step=1)
    torch.testing.assert_close(posthoc(tmp_path, 1 / 13)["w"], weight)


def test_a_combination_sums_to_one_and_knows_how_near_it_comes():
    steps, exponents = np.repeat(np.arange(1, 41) * 100.0, 2), np.tile([exponent_of(0.05), exponent_of(0.10)], 40)
    for length, limit in [(0.05, 1e-6), (0.08, 1e-3), (0.15, 5e-3)]:
        weights, error = posthoc_weights(steps, exponents, step=4000, exponent=exponent_of(length))
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        assert error < limit
    assert posthoc_weights(steps, exponents, step=4000, exponent=exponent_of(0.005))[1] > 0.3


class TestInTraining:
    def test_the_first_length_is_the_result(self, tmp_path):
        task = Toy()
        result = run(task, tmp_path, ema=POWER)
        weights = [*task.weights[1:], flat(task.model.parameters())]
        expected, gamma = weights[0].double(), exponent_of(0.05)
        for t, w in enumerate(weights[1:], start=2):
            beta = (1 - 1 / t) ** (gamma + 1)
            expected = beta * expected + (1 - beta) * w
        torch.testing.assert_close(flat(result.ema_state.values()).double(), expected, rtol=0, atol=1e-6)
        last = posthoc(tmp_path / "snapshots", 0.05)
        assert last.keys() == result.ema_state.keys()
        for name, value in last.items():
            torch.testing.assert_close(value, result.ema_state[name], rtol=1e-5, atol=1e-6)

    def test_snapshots_are_evenly_spaced_and_leave_training_alone(self, tmp_path):
        task, plain = Toy(), Toy()
        run(task, tmp_path / "power", ema=POWER)
        run(plain, tmp_path / "plain")
        assert torch.equal(flat(task.model.parameters()), flat(plain.model.parameters()))
        names = sorted(p.name for p in (tmp_path / "power" / "snapshots").iterdir())
        assert names == [f"snapshot-{k:012d}.safetensors" for k in (16, 32, 48, 64, 80)]

    @pytest.mark.parametrize("point", [3, 5, 9])
    def test_stopped_and_resumed_to_the_same_bits(self, tmp_path, point):
        def stop(step, loss):
            if step == point:
                raise KeyboardInterrupt
            return loss

        expected = run(Toy(), tmp_path / "whole", ema=POWER).ema_state
        with pytest.raises(KeyboardInterrupt):
            run(Toy(hook=stop), tmp_path / "cut", ema=POWER)
        assert same(run(Toy(), tmp_path / "cut", ema=POWER).ema_state, expected)
        whole, cut = (sorted((tmp_path / name / "snapshots").iterdir()) for name in ("whole", "cut"))
        assert [p.name for p in whole] == [p.name for p in cut]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, cut, strict=True))
        assert same(load_latest(tmp_path / "whole")[0], load_latest(tmp_path / "cut")[0])

    def test_a_budget_keeps_its_snapshots_by_the_clock(self, tmp_path):
        result = run(Toy(), tmp_path, ema=POWER, budget=0.4)
        images = sorted(int(p.stem[9:]) for p in (tmp_path / "snapshots").iterdir())
        assert 3 <= len(images) <= 5
        assert images[-1] == result.images


class TestMistakes:
    def test_no_snapshots(self, tmp_path):
        with pytest.raises(CheckpointError, match="no snapshots") as caught:
            posthoc(tmp_path, 0.1)
        assert "lengths" in caught.value.remedy

    def test_a_position_before_the_first_snapshot(self, tmp_path):
        run(Toy(), tmp_path, ema=POWER)
        early = posthoc(tmp_path / "snapshots", 0.05, images=40)
        assert early.keys() == posthoc(tmp_path / "snapshots", 0.05).keys()
        with pytest.raises(CheckpointError, match="no snapshot of the first 15 images"):
            posthoc(tmp_path / "snapshots", 0.05, images=15)

    def test_a_damaged_snapshot_is_named(self, tmp_path):
        run(Toy(), tmp_path, ema=POWER)
        path = max((tmp_path / "snapshots").iterdir())
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(CheckpointError, match="snapshot-000000000080"):
            posthoc(tmp_path / "snapshots", 0.1)

    def test_a_flipped_bit_in_a_snapshot_is_seen(self, tmp_path):
        run(Toy(), tmp_path, ema=POWER)
        flip(min((tmp_path / "snapshots").iterdir()), -1)
        with pytest.raises(CheckpointError, match=r"snapshot-000000000016.*do not match their hash"):
            posthoc(tmp_path / "snapshots", 0.1)

    def test_a_file_of_someone_else(self, tmp_path):
        safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "snapshot-000000000001.safetensors")
        with pytest.raises(CheckpointError, match="cannot be read"):
            posthoc(tmp_path, 0.1)

    def test_a_length_far_from_all_that_was_kept(self, tmp_path):
        run(Toy(), tmp_path, ema=POWER)
        with pytest.raises(GaldiffError, match="only") as caught:
            posthoc(tmp_path / "snapshots", 0.01)
        assert "0.05, 0.1" in caught.value.remedy
