"""``galdiff store``: what a store holds, and status 1 where it is damaged."""

import pytest
import torch
from typer.testing import CliRunner

from galdiff import cli
from galdiff.latents import LatentStore
from galdiff.schema.conditions import Conditions, ConditionSchema, Scalar

runner = CliRunner()


@pytest.fixture
def path(tmp_path):
    n, z = 600, torch.arange(600.0)
    store = LatentStore.create(
        tmp_path / "latents.zarr",
        shape=(1, 2, 2),
        ids=torch.arange(n).numpy(),
        split=["train"] * n,
        conditions=Conditions({"z": z}, {"z": z > 3}),
        schema=ConditionSchema([Scalar("z", "Mpc")]),
    )
    store.write_shard(0, mean=torch.ones(n, 1, 2, 2).numpy(), log_var=torch.zeros(n, 1, 2, 2).numpy())
    store.finish()
    return tmp_path / "latents.zarr"


def test_info_and_a_sound_store(path):
    done = runner.invoke(cli.app, ["store", "info", str(path)])
    assert done.exit_code == 0, done.output
    assert "600 in 1 shards (train 600)" in done.output
    assert "Mpc" in done.output
    assert runner.invoke(cli.app, ["store", "verify", str(path)]).exit_code == 0
    assert runner.invoke(cli.app, ["store", "info", str(path.parent)]).exit_code == 2


def test_a_damaged_store(path):
    (path / "mean/c/0/0/0/0").unlink()
    done = runner.invoke(cli.app, ["store", "verify", str(path)])
    assert done.exit_code == 1
    assert "shard 0, 'mean', rows 0-255 (ids 0, 1, 2, 3, 4, …)" in done.output
    done = runner.invoke(cli.app, ["store", "verify", str(path), "--reopen"])
    assert done.exit_code == 1
    assert runner.invoke(cli.app, ["store", "info", str(path)]).exit_code == 2  # not complete now
