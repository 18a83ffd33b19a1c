"""A parameterization of your own: an item holds four small images and decodes to ten, the four and their blends by two.

python examples/own_parameterization.py FOLDER
"""

import sys
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import torch
from torch.nn.functional import interpolate

from distil import DistilledSet, distil_dataset, evaluate, preset
from distil.parameterizations.plain import PlainParameterization

PAIRS = list(combinations(range(4), 2))


@dataclass(frozen=True)
class Blends(PlainParameterization):
    """The quarters of an item, enlarged to `size` (h, w), and the mean of every two of them."""

    size: tuple[int, int]
    kind: ClassVar = "blends"

    @property
    def images_per_item(self):
        return 4 + len(PAIRS)

    def encode(self, images):
        """Items [n, c, h, w] whose quarters are the first four of the images [n, v, c, h, w], shrunk."""
        half = (self.size[0] // 2, self.size[1] // 2)
        small = [interpolate(images[:, i], half, mode="bilinear", antialias=True) for i in range(4)]
        return torch.cat([torch.cat(small[:2], 3), torch.cat(small[2:], 3)], 2)

    def decode(self, params):
        """Images [10 n, c, h, w] of learned items, or of stored ones; differentiable."""
        quarters = [quarter for row in self.pixels(params).chunk(2, 2) for quarter in row.chunk(2, 3)]
        large = [interpolate(quarter, self.size, mode="bilinear") for quarter in quarters]
        blends = [(large[i] + large[j]) / 2 for i, j in PAIRS]
        return torch.stack([*large, *blends], 1).flatten(0, 1)

    def header(self):
        return {"decode": "The four quarters of a canvas, enlarged bilinearly to view_size, and the mean of each two."}

    @classmethod
    def load(cls, params, tensors, header):
        return cls(tuple(header["view_size"]))

    def describe(self):
        return f"four small images, which decode to {self.images_per_item}"


def main(folder: Path, outer: int = 6) -> float:
    settings = preset("idc", "digits", ipc=1)
    settings = replace(settings, method="blends", outer=outer, parameterization=Blends((16, 16)))
    made = distil_dataset("digits", settings)
    made.save(folder / "blends.safetensors")
    again = DistilledSet.load(folder / "blends.safetensors", parameterizations=[Blends])
    accuracy = evaluate(again, "digits", protocol="quick", width=32, runs=1).mean["convnet3"]
    print(f"{again.parameterization.describe()}: {accuracy:.1f}% on the test images")
    return accuracy


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
