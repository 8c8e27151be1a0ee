"""Write statmorph's values of real galaxies, the reference table that `tests/metrics` compares with.

    python benchmarks/morphology_table.py FOLDER_OF_GZ1 tests/metrics/data/gz1_statmorph.csv

Every eleventh galaxy of Galaxy Zoo 1's table (SDSS, 8-bit display units), as the pipeline makes its cutouts: the
middle half of the stamp at 64 pixels, the mean of the bands, the segmentation `galdiff.metrics.segment`'s, pixels
weighed alike. It takes a third of a second a galaxy. The table has numbers only; NaN where statmorph calls a
measurement bad.
"""

import sys

import numpy as np

from galdiff.data import ImageFolderDataset
from galdiff.metrics import morphology_exact

STEP, COUNT, CHUNK = 11, 500, 50


def main(root: str, out: str) -> None:
    data = ImageFolderDataset(
        root, table="smallCSV_class.csv", id="OBJID", label="CLASS", images="images", crop=0.5, size=64
    )
    rows = np.arange(0, len(data), STEP)[:COUNT]
    for k in range(0, len(rows), CHUNK):
        part = rows[k : k + CHUNK]
        images = np.stack([data.read(int(row)) for row in part])
        table = morphology_exact(images, scheduler="synchronous").to_dataframe()
        table.insert(0, "id", data.ids[part])
        table.to_csv(out, mode="w" if k == 0 else "a", header=k == 0, index=False, float_format="%.6g")
        print(f"{k + len(part)} of {len(rows)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
