"""Checkpoints: whole or absent, and never silently another."""

import errno
import os
import warnings

import numpy as np
import pytest
import torch

from galdiff.errors import CheckpointError, ResourceError
from galdiff.training import load_latest, save_checkpoint


def tensors(k):
    random = torch.Generator().manual_seed(k)
    return {"model.w": torch.randn(5, 7, generator=random), "step": torch.tensor(float(k)), "empty": torch.zeros(0, 3)}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def folder(tmp_path):
    for k in (1, 2, 3):
        save_checkpoint(tmp_path, 100 * k, tensors(k), {"seconds": 1.5 * k})
    return tmp_path


def newest(folder):
    return max(folder.glob("checkpoint-*"))


def test_round_trip_keeps_bits_types_and_shapes(folder):
    loaded, meta = load_latest(folder)
    assert equal(loaded, tensors(3))
    assert all(loaded[name].dtype == tensor.dtype for name, tensor in tensors(3).items())
    assert meta == {"seconds": 4.5, "images": 300}


def test_the_newest_two_are_kept(folder):
    assert [p.name for p in sorted(folder.iterdir())] == [f"checkpoint-{k:012d}.safetensors" for k in (200, 300)]


def test_no_checkpoint_is_none(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "absent") is None


def test_bytes_of_any_layout_are_those_of_the_tensor(tmp_path):
    image = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path, 1, {"w": image, "t": image[0, 0].T}, {})
    assert equal(load_latest(tmp_path)[0], {"w": image, "t": image[0, 0].T})


def test_a_flipped_byte_falls_back_to_the_one_before_or_changes_nothing(folder):
    path = newest(folder)
    data = path.read_bytes()
    random = np.random.default_rng(2)
    fell_back = 0
    for place in random.choice(len(data), 150, replace=False):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << int(random.integers(8)))]) + data[place + 1 :])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loaded, meta = load_latest(folder)
        if caught:
            fell_back += 1
            assert path.name in str(caught[0].message)
            assert "checkpoint-000000000200" in str(caught[0].message)
            assert equal(loaded, tensors(2))
            assert meta == {"seconds": 3.0, "images": 200}
        else:
            assert equal(loaded, tensors(3))
            assert meta == {"seconds": 4.5, "images": 300}
    assert fell_back > 140


@pytest.mark.parametrize("kept", [0, 1, 8, 0.5, 0.99])
def test_a_truncated_checkpoint_falls_back(folder, kept):
    data = newest(folder).read_bytes()
    newest(folder).write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        loaded, _ = load_latest(folder)
    assert equal(loaded, tensors(2))


def test_a_folder_in_its_place_falls_back(folder):
    path = newest(folder)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="damaged checkpoint"):
        assert equal(load_latest(folder)[0], tensors(2))


def test_training_never_starts_again_in_silence(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint can be read") as caught:
        load_latest(folder)
    assert caught.value.remedy


def test_weights_of_someone_else_are_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "checkpoint-000000000001.safetensors")
    with pytest.raises(CheckpointError):
        load_latest(tmp_path)


def test_a_full_disk_leaves_the_checkpoints_there_were(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        save_checkpoint(folder, 400, tensors(4), {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_a_crash_left_half_written_is_cleared_away(folder):
    (folder / ".checkpoint-000000000400.safetensors.1.tmp").write_bytes(b"half")
    assert load_latest(folder)[1]["images"] == 300
    save_checkpoint(folder, 400, tensors(4), {})
    assert not list(folder.glob(".*"))
