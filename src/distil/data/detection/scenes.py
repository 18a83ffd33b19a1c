"""Detection scenes drawn on the fly from scikit-learn's real handwritten digits."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8
from sklearn.datasets import load_digits
from torch import Tensor

from distil.data.arrays import stratified_split
from distil.data.detection.detection_set import Annotations, DetectionSet, DetectionSource
from distil.data.detection.inventory import Findings, make_inventory
from distil.data.detection.scene_drawing import COVERED, Layout, arrange, paint
from distil.data.detection.splits import Split
from distil.errors import DistilError
from distil.rng import seed_at

TRAIN_SCENES, VAL_SCENES, TEST_SCENES = 1000, 150, 300
TEST_PER_CLASS, VAL_PER_CLASS = 50, 25
"""Handwritten digits of each class that test scenes alone, and validation scenes alone, are made of."""

SMALL = 20
"""Pixels of a digit's longer side under which it is tagged small."""

KEPT_BYTES = 256 * 2**20
"""Bytes of pixels of each split that are kept once drawn; further scenes are drawn anew each time."""


@dataclass(frozen=True)
class SceneSettings:
    """What scenes show. All numbers are ours."""

    size: int = 128
    """Side of the canvas in pixels."""
    classes: int = 5
    """The digits 0 to classes - 1 occur."""
    objects: tuple[int, int] = (1, 6)
    """Fewest and most digits in a scene; fewer where no room is left."""
    sides: tuple[int, int] = (12, 64)
    """Lowest and highest digit in pixels, before it is turned; drawn evenly by logarithm."""
    blurred: float = 0.2
    """Share of digits that are blurred."""
    occluded: float = 0.3
    """Share of digits for which a bar over them is tried, or a place where they cover another digit in part."""
    clutter: int = 10
    """At most so many strokes and shapes lie behind the digits."""

    def __post_init__(self) -> None:
        (low, high), (fewest, most) = self.sides, self.objects
        if self.size < 32 or not 8 <= low <= high <= self.size * 2 / 3:
            raise DistilError(
                f"scenes of {self.size} pixels with digits of {low} to {high}: a scene needs at least 32 pixels, a "
                "digit at least 8 and at most two thirds of the scene."
            )
        if not (2 <= self.classes <= 10 and 0 <= fewest <= most and most >= 1 and self.clutter >= 0):
            raise DistilError(
                f"scenes with {self.classes} classes, {fewest} to {most} digits and {self.clutter} shapes: give 2 to "
                "10 classes, and numbers of digits and shapes from 0 on, of which the most digits is 1 or more."
            )
        if not (0 <= self.blurred <= 1 and 0 <= self.occluded <= 1):
            raise DistilError(f"shares of digits, blurred {self.blurred} and occluded {self.occluded}: give 0 to 1.")


@dataclass(frozen=True, eq=False)
class Scenes:
    """The pictures of one split: scene i is drawn from (seed, split, i) alone.

    handwriting: uint8 (n, 8, 8), 0 to 16, of this split alone; labels: of each, from 1.
    """

    handwriting: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    count: int
    split: str
    settings: SceneSettings
    seed: int
    _images: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _objects: dict[int, tuple[Annotations, list[frozenset[str]]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> UInt8[Tensor, "3 h w"]:
        kept = self._images.get(index)
        if kept is not None:
            return kept.clone()
        layout = self._layout(index)
        settings, draws = self.settings, self._draws(index, "painting")
        image = torch.from_numpy(
            np.ascontiguousarray(paint(layout, canvas=settings.size, clutter=settings.clutter, draws=draws))
        )
        self._objects.setdefault(index, _objects(layout))
        if (len(self._images) + 1) * image.numel() <= KEPT_BYTES:
            self._images[index] = image.clone()
        return image

    def annotations(self, index: int) -> Annotations:
        return self._found(index)[0]

    def tags(self, index: int) -> list[frozenset[str]]:
        return list(self._found(index)[1])

    def identifier(self, index: int) -> str:
        return f"{self.split}_{index:06d}.png"

    def size(self, index: int) -> tuple[int, int]:
        return self.settings.size, self.settings.size

    def _found(self, index: int) -> tuple[Annotations, list[frozenset[str]]]:
        if index not in self._objects:
            self._objects[index] = _objects(self._layout(index))
        return self._objects[index]

    def _layout(self, index: int) -> Layout:
        settings = self.settings
        return arrange(
            self.handwriting,
            self.labels,
            canvas=settings.size,
            objects=settings.objects,
            sides=settings.sides,
            blurred=settings.blurred,
            occluded=settings.occluded,
            draws=self._draws(index, "layout"),
        )

    def _draws(self, index: int, purpose: str) -> np.random.Generator:
        return np.random.default_rng(seed_at(self.seed, "sources", "scenes", self.split, index, purpose))


def _objects(layout: Layout) -> tuple[Annotations, list[frozenset[str]]]:
    boxes = torch.tensor([digit.box for digit in layout.digits], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([digit.label for digit in layout.digits], dtype=torch.int64)
    sides = boxes[:, 2:] - boxes[:, :2]
    tags = []
    for digit, side in zip(layout.digits, sides.amax(1).tolist(), strict=True):
        held = {"small": side < SMALL, "blurred": digit.blurred, "occluded": digit.hidden >= COVERED}
        tags.append(frozenset(name for name, holds in held.items() if holds))
    return Annotations(boxes, labels, torch.zeros(len(labels), dtype=torch.bool), sides.prod(1)), tags


def scenes_source(
    train: int = TRAIN_SCENES,
    val: int = VAL_SCENES,
    test: int = TEST_SCENES,
    *,
    settings: SceneSettings | None = None,
    seed: int = 0,
) -> DetectionSource:
    """Scenes of handwritten digits among clutter: of varied size, some blurred, some covered in part.

    train, val, test: numbers of scenes. settings: what they show. seed: of every draw, but not of which handwriting
    belongs to which split: that is fixed, and no handwritten digit occurs in two splits.

    A scene depends on (seed, split, its index) alone: fewer scenes are the first of more. Boxes are tight around a
    digit's ink as if nothing covered it. `tags` says which digits are small (longer side under SMALL pixels), blurred,
    or occluded (COVERED of the ink or more hidden; never more than half).

    Raises: DistilError if a number of scenes is below 1.

    Source: the handwriting as in `distil.data.images.digits`; the scenes are ours.
    """
    if min(train, val, test) < 1:
        raise DistilError(f"{train} training, {val} validation and {test} test scenes: give 1 or more of each.")
    settings = settings or SceneSettings()
    pixels, numbers = (np.asarray(array) for array in load_digits(return_X_y=True))
    used = np.flatnonzero(numbers < settings.classes)
    handwriting, labels = pixels[used].reshape(-1, 8, 8).astype(np.uint8), numbers[used] + 1
    classes = tuple(str(number) for number in range(settings.classes))
    # the digits of `distil.data.images.digits`'s test split are those of the test scenes
    rest, tested = _split(labels, classes, TEST_PER_CLASS, "sources", "digits", "test")
    trained, validated = _split(labels[rest], classes, VAL_PER_CLASS, "sources", "scenes", "val")
    chosen: dict[Split, tuple[np.ndarray, int]] = {
        "train": (rest[trained], train),
        "val": (rest[validated], val),
        "test": (tested, test),
    }
    splits: dict[Split, DetectionSet] = {
        split: DetectionSet(
            Scenes(handwriting[which], labels[which], count, split, settings, seed), classes, f"scenes {split}"
        )
        for split, (which, count) in chosen.items()
    }
    told: dict[Split, tuple[DetectionSet, str]] = {
        split: (data, f"handwriting that no other split has, seed {seed}") for split, data in splits.items()
    }
    inventory = make_inventory("scenes", "drawn from handwritten digits", told, Findings())
    return DetectionSource(splits["train"], splits["val"], splits["test"], "scenes", inventory=inventory)


def _split(labels: np.ndarray, classes: tuple[str, ...], held_out: int, *address: str) -> tuple[np.ndarray, np.ndarray]:
    kept, held = stratified_split(torch.from_numpy(labels - 1), classes, [held_out] * len(classes), 0, *address)
    return kept.numpy(), held.numpy()
