"""Trees of images of all sizes, written by tests."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def picture(seed: int, height: int, width: int, mode: str = "RGB") -> Image.Image:
    """A smooth image, so that JPEG keeps it, whose colors depend on the seed."""
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(corners).resize((width, height))
    return smooth.convert(mode)


def write_tree(
    root: Path, name: str = "imagenet", *, train: int = 24, val: int = 9
) -> None:
    """Writes ROOT/NAME/{train,val}/CLASS/*.JPEG of 30 to 60 pixels a side."""
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            generator = np.random.default_rng(i + 1000 * (split == "val"))
            height, width = generator.integers(30, 61, 2).tolist()
            folder = root / name / split / CLASSES[i % len(CLASSES)]
            folder.mkdir(parents=True, exist_ok=True)
            picture(i, height, width).save(folder / f"{i:03d}.JPEG", quality=95)
