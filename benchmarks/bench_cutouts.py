"""From JPEG files to cutouts, beside Pillow alone doing what it does fastest."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from galdiff.data.geometry import center_crop, resize
from galdiff.data.images import read_image

from .clock import best

FILES, BEFORE, AFTER = 32, 424, 64


class Cutouts:
    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:BEFORE, :BEFORE] / BEFORE - 0.5
        for i in range(FILES):
            light = 200 * np.exp(-20 * np.hypot(y, x))[..., None] + rng.normal(12, 4, (BEFORE, BEFORE, 3))
            Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(Path(self.folder.name, f"{i}.jpg"), quality=92)
        self.paths = sorted(Path(self.folder.name).iterdir())

    def teardown(self):
        self.folder.cleanup()

    def galdiff(self):
        return [resize(center_crop(read_image(path), 0.5), AFTER) for path in self.paths]

    def pillow(self):
        edge = BEFORE // 4
        box = (edge, edge, BEFORE - edge, BEFORE - edge)
        images = []
        for path in self.paths:
            with Image.open(path) as image:
                images.append(np.asarray(image.resize((AFTER, AFTER), Image.Resampling.BOX, box=box)))
        return images

    def track_images_per_second(self):
        return FILES / best(self.galdiff)

    track_images_per_second.unit = "images/s"

    def track_time_over_pillow(self):
        return best(self.galdiff) / best(self.pillow)

    track_time_over_pillow.unit = "ratio"
