"""Files of tensors: what was written comes back, and nothing else does."""

import pytest
import torch
from safetensors.torch import save_file

from galdiff.weights import load_weights, save_weights

TENSORS = {
    "float": torch.randn(3, 4),
    "half": torch.randn(5).bfloat16(),
    "count": torch.tensor(7),
    "nothing": torch.empty(0, 2),
    "turned": torch.randn(4, 3).T,
}


def test_every_kind_of_tensor_and_the_notes_come_back(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, TENSORS, {"images": 3})
    tensors, notes = load_weights(path)
    assert notes == {"images": 3}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("change", ["a byte of the last tensor", "the notes", "a name"])
def test_no_change_goes_unseen(tmp_path, change):
    path = tmp_path / "weights.safetensors"
    save_weights(path, TENSORS, {"images": 3})
    raw = bytearray(path.read_bytes())
    if change == "a byte of the last tensor":
        raw[-1] ^= 1
    else:
        old, new = (b"images", b"limits") if change == "the notes" else (b'"turned"', b'"burned"')
        raw[:] = raw.replace(old, new)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="do not match their hash"):
        load_weights(path)


def test_files_of_other_tools_have_no_hash_and_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, path, {"format": "pt"})
    tensors, notes = load_weights(path)
    assert torch.equal(tensors["a"], torch.ones(2))
    assert notes == {}
