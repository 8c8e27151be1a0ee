"""What every test may use: real data where there are some, a GPU where there is one, repeatable examples."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "galdiff",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("galdiff")


@pytest.fixture(scope="session")
def real_data():
    """Return the folder of a real data set by its name; tests are skipped where it is not at hand."""
    root = os.environ.get("GALDIFF_DATA")

    def find(name):
        if not root:
            pytest.skip("GALDIFF_DATA does not name a folder of real data")
        folder = Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"GALDIFF_DATA has no '{name}'")
        return folder

    return find


def pytest_collection_modifyitems(items):
    # Files with slow tests first: several workers then end together.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
