"""A table of 240,000 galaxies in the columns of Hart et al. 2016: to the first item, from the file and from the cache.

The peak of the memory is that of a process of its own, PyTorch and all; the seconds are without the imports.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from galdiff.schema.trees import GZ2_TREE

ROWS, DISTINCT = 240_000, 2000
FIRST_ITEM = """
import resource, sys, time
from galdiff.data import GZ2Dataset
begun = time.perf_counter()
GZ2Dataset(sys.argv[1])[0]
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write(folder):
    """Write a table, a mapping and an image: some rows over and over, under ids of their own."""
    rng = np.random.default_rng(0)
    columns = ["ra", "dec", "sample", "gz2_class", "total_classifications", "total_votes"]
    columns += [f"{a.name}{kind}" for a in GZ2_TREE.answers for kind in ("_count", "_weight", "_fraction")]
    columns += [f"{a.name}{kind}" for a in GZ2_TREE.answers for kind in ("_weighted_fraction", "_debiased", "_flag")]
    n = len(GZ2_TREE.answers)
    tails = []
    for _ in range(DISTINCT):
        row = [*(f"{x:.6f}" for x in 100 * rng.random(2)), "original", "Sc2t", "44", "250"]
        for count, fraction in zip(rng.integers(0, 44, n), rng.random(n), strict=True):
            row += [str(count), f"{count * fraction:.3f}", f"{fraction:.3f}"]
        for fraction, debiased in rng.random((n, 2)):
            row += [f"{fraction:.3f}", f"{debiased:.3f}", "0"]
        tails.append(",".join(row))
    with open(folder / "gz2_hart16.csv", "w") as table, open(folder / "gz2_filename_mapping.csv", "w") as mapping:
        table.write(",".join(["dr7objid", *columns]) + "\n")
        mapping.write("objid,sample,asset_id\n")
        for i in range(ROWS):
            objid = 587_722_981_736_120_347 + 77 * i
            table.write(f"{objid},{tails[i % DISTINCT]}\n")
            mapping.write(f"{objid},original,{i + 1}\n")
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((424, 424, 3), np.uint8)).save(folder / "images" / "1.jpg")
    for i in range(2, ROWS + 1):  # that they are there is all that counts
        (folder / "images" / f"{i}.jpg").touch()


class Hart16:
    timeout = 300

    def setup_cache(self):
        """Measure once, from the file and then from the cache that it left."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder)
            environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
            command = [sys.executable, "-c", FIRST_ITEM, name]
            runs = [subprocess.run(command, env=environment, check=True, capture_output=True) for _ in range(2)]
            return [tuple(map(float, run.stdout.split())) for run in runs]

    def track_seconds_from_the_file(self, runs):
        return runs[0][0]

    def track_seconds_from_the_cache(self, runs):
        return runs[1][0]

    def track_peak_memory(self, runs):
        return max(megabytes for _, megabytes in runs)

    track_seconds_from_the_file.unit = track_seconds_from_the_cache.unit = "s"
    track_peak_memory.unit = "MiB"
