"""Streaming metrics: the functions' values from any batches, and from two processes."""

import multiprocessing
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from galdiff import metrics
from galdiff.errors import DataError

rng = np.random.default_rng(0)
REAL, GENERATED = rng.normal(size=(90, 4)), rng.normal(0.2, 1.1, size=(75, 4))
KERNEL = {"subsets": 10, "subset_size": 40}
LADDER = {"rungs": 4, "groups": 5}
WINDOWS = {"windows": 4, "span": (-2, 2), "minimum": 10}
LABELED = ("ClassDistances", "SlidingDistances")


def built():
    return {
        "FrechetDistance": metrics.FrechetDistance(4),
        "KernelDistance": metrics.KernelDistance(**KERNEL),
        "PrecisionRecall": metrics.PrecisionRecall(k=3),
        "AuthenticShare": metrics.AuthenticShare(),
        "EnergyDistance": metrics.EnergyDistance(),
        "WassersteinDistance": metrics.WassersteinDistance(),
        "SquaredMMD": metrics.SquaredMMD(kernel=metrics.GaussianKernel(1.5)),
        "SlicedWasserstein": metrics.SlicedWasserstein(projections=16, seed=3),
        "StatisticDistances": metrics.StatisticDistances(),
        "FrechetInfinity": metrics.FrechetInfinity(**LADDER),
        "ClassDistances": metrics.ClassDistances(minimum=10),
        "SlidingDistances": metrics.SlidingDistances(**WINDOWS),
    }


def labels(rows, name):
    """A label that belongs to the row: in windows its first feature, else one of two classes and a rare one."""
    first = torch.as_tensor(rows)[:, 0]
    return first if name == "SlidingDistances" else (first > 0).int() + (first > 1.8).int()


def fill(metric, real, generated, batch):
    name = type(metric).__name__
    for rows, side in ((generated, False), (real, True)):
        for part in torch.from_numpy(rows).split(batch) if len(rows) else ():
            known = {"labels": labels(part, name)} if name in LABELED else {}
            metric.update(part, real=side, **known)


def expected():
    a, b = (x[np.lexsort(x.T[::-1])] for x in (REAL, GENERATED))
    fit = metrics.frechet_infinity(a, b, **LADDER)
    kinds, numbers = ([labels(x, name) for x in (a, b)] for name in LABELED)
    statistics = metrics.statistic_distances(a, b)
    return {
        "FrechetDistance": metrics.frechet_distance(a, b),
        "KernelDistance": metrics.kernel_distance(a, b, **KERNEL),
        "PrecisionRecall": metrics.precision_recall(a, b, k=3),
        "AuthenticShare": metrics.authentic_share(a, b),
        "EnergyDistance": metrics.energy_distance(a, b),
        "WassersteinDistance": metrics.wasserstein_distance(a, b),
        "SquaredMMD": metrics.squared_mmd(a, b, kernel=metrics.GaussianKernel(1.5)),
        "SlicedWasserstein": metrics.sliced_wasserstein(a, b, projections=16, seed=3),
        "StatisticDistances": [statistics[key] for key in ("wasserstein", "wasserstein_scaled", "energy", "ks")],
        "FrechetInfinity": [fit.value, fit.error, fit.fit_error, fit.slope],
        "ClassDistances": metrics.class_distances(a, kinds[0], b, kinds[1], minimum=10)["distance"],
        "SlidingDistances": metrics.sliding_distances(a, numbers[0], b, numbers[1], **WINDOWS)["distance"],
    }


def test_every_public_distance_has_a_metric():
    """What two sets of features are compared by; `memorisation` compares three."""
    compared = ("distance", "distances", "mmd", "infinity", "share", "recall", "wasserstein")
    functions = [name for name in metrics.__all__ if name.endswith(compared) and name.islower()]
    named = {name.lower() for name in metrics.__all__ if not name.islower()}
    assert [name for name in functions if name.replace("_", "") not in named] == []
    known = expected()
    assert np.isnan(known["ClassDistances"].values).tolist() == [False, False, True]
    assert np.isfinite(known["SlidingDistances"]).sum() >= 2


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_any_batches_give_the_functions_values(batch):
    known = expected()
    for name, metric in built().items():
        fill(metric, REAL, GENERATED, batch)
        np.testing.assert_allclose(metric.compute(), known[name], rtol=1e-10, atol=1e-12, err_msg=name)
        metric.reset()
        fill(metric, REAL[::-1].copy(), GENERATED, batch)
        np.testing.assert_allclose(metric.compute(), known[name], rtol=1e-10, atol=1e-12, err_msg=name)


def _process(rank, shares, address, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(address))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    values = []
    for real, generated in shares:
        for name, metric in built().items():
            fill(metric, REAL[real[rank]], GENERATED[generated[rank]], 8)
            values.append((name, metric.compute().numpy()))
    if rank == 0:
        queue.put(values)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_value_of_one():
    """Shares of different lengths, interleaved rows, and a process that has no generated rows at all."""
    shares = [
        ((slice(0, 50), slice(50, 90)), (slice(0, 10), slice(10, 75))),
        ((slice(0, 90, 2), slice(1, 90, 2)), (slice(0, 75), slice(0, 0))),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_process, args=(rank, shares, port, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=240)
    ended = [worker.exitcode for worker in workers]
    for worker in workers:
        worker.kill()
    assert ended == [0, 0]
    values = queue.get(timeout=10)
    known = expected()
    assert len(values) == 2 * len(known)
    for name, value in values:
        np.testing.assert_allclose(value, known[name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_a_checkpoint_of_states_goes_on():
    metric, again = metrics.FrechetDistance(4), metrics.FrechetDistance(4)
    metric.persistent(True)
    again.persistent(True)
    metric.update(REAL, real=True)
    again.load_state_dict(metric.state_dict())
    again.update(GENERATED, real=False)
    assert float(again.compute()) == pytest.approx(expected()["FrechetDistance"], rel=1e-12)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_errors():
    for name, metric in built().items():
        known = {"labels": np.zeros(3)} if name in LABELED else {}
        with pytest.raises(DataError):
            metric.compute()
        with pytest.raises(DataError, match="not finite"):
            metric.update(np.full((3, 4), np.nan), real=True, **known)
        metric.update(REAL[:3], real=True, **known)
        with pytest.raises(DataError, match="features"):
            metric.update(np.ones((3, 5)), real=False, **known)
        with pytest.raises(DataError):
            metric.compute()
        assert name in metrics.__all__
    with pytest.raises(DataError):
        metrics.FrechetDistance(0)
    with pytest.raises(DataError, match="2 labels are given of 3 rows"):
        metrics.ClassDistances().update(np.ones((3, 4)), np.zeros(2), real=True)
    with pytest.raises(ValueError, match="subset"):
        metrics.KernelDistance(subset=3)


def test_importing_the_metrics_imports_no_torchmetrics_and_the_package_no_torch():
    code = "import sys, galdiff; assert 'torch' not in sys.modules; import galdiff.metrics as m;"
    code += "assert 'torchmetrics' not in sys.modules and 'dask.array' not in sys.modules;"
    code += "m.FrechetDistance; assert 'torchmetrics' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        metrics.Nothing  # noqa: B018
