"""From a folder of JPEG files to the cutout cache, beside Pillow alone that decodes and resizes and keeps nothing."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from galdiff.data import ImageFolderDataset
from galdiff.pipeline import write_cutouts
from galdiff.progress import quiet

from .clock import best

FILES, BEFORE, AFTER, WORKERS = 512, 424, 64, 2


class Cutouts:
    params = (1.0, 0.5)
    param_names = ("crop",)

    def setup(self, crop):
        self.folder = tempfile.TemporaryDirectory()
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:BEFORE, :BEFORE] / BEFORE - 0.5
        for i in range(FILES):
            # As large as the files of Galaxy Zoo 2, 14 KB in the median.
            light = 200 * np.exp(-20 * np.hypot(y, x))[..., None] + rng.normal(12, 3, (BEFORE, BEFORE, 3))
            Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(Path(self.folder.name, f"{i}.jpg"), quality=75)
        self.paths = sorted(Path(self.folder.name).glob("*.jpg"))
        self.data = ImageFolderDataset(self.folder.name, size=AFTER, crop=crop)
        edge = BEFORE * (1 - crop) / 2
        self.box = (edge, edge, BEFORE - edge, BEFORE - edge)

    def teardown(self, crop):
        self.folder.cleanup()

    def galdiff(self):
        with quiet(), tempfile.TemporaryDirectory() as out:
            write_cutouts(self.data, Path(out, "cutouts.zarr"), split={}, workers=WORKERS)

    def pillow(self, kernel):
        def some(paths):
            for path in paths:
                with Image.open(path) as image:
                    np.asarray(image.resize((AFTER, AFTER), kernel, box=self.box))

        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(some, [self.paths[k : k + 16] for k in range(0, FILES, 16)]))

    def track_images_per_second(self, crop):
        return FILES / best(self.galdiff, rounds=3)

    track_images_per_second.unit = "images/s"

    def track_share_of_the_decode_limit(self, crop):
        """Hamming's kernel is as wide as galdiff's, bicubic is what Pillow takes if nothing is said."""
        return best(lambda: self.pillow(Image.Resampling.HAMMING), rounds=3) / best(self.galdiff, rounds=3)

    def track_share_of_the_bicubic_decode_limit(self, crop):
        return best(lambda: self.pillow(Image.Resampling.BICUBIC), rounds=3) / best(self.galdiff, rounds=3)

    track_share_of_the_decode_limit.unit = track_share_of_the_bicubic_decode_limit.unit = "ratio"
