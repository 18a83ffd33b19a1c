"""Sizes of images and anchors that are taken from the data."""

from dataclasses import dataclass

import pytest
import torch

from distil.data.detection.detection_set import Annotations, DetectionSet
from distil.detector.presets import student_preset
from distil.detector.sizes import sizes_for
from distil.networks.detectors import Architecture, check_architecture


@dataclass(frozen=True)
class Blank:
    """Images of given heights and widths, with square objects of given sides in each."""

    sizes: tuple[tuple[int, int], ...]
    sides: tuple[float, ...]

    def __len__(self):
        return len(self.sizes)

    def size(self, index):
        return self.sizes[index]

    def annotations(self, index):
        boxes = torch.tensor([[0.0, 0.0, side, side] for side in self.sides]).reshape(-1, 4)
        many = len(boxes)
        return Annotations(boxes, torch.ones(many, dtype=torch.int64), torch.zeros(many, dtype=torch.bool), boxes[:, 2])


def blank(sizes, sides=()):
    return DetectionSet(Blank(tuple(sizes), tuple(sides)), ("thing",), "blank")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("sizes", "sides", "wanted"),
    [
        ([(240, 320)] * 3, [51.0] * 9, (240, 320, 32.0)),  # never enlarged
        ([(240, 320)], [21.0], (240, 320, 21.0)),
        ([(1000, 1500)], [300.0], (320, 480, 32.0)),  # large images of large objects are made small
        ([(1000, 1500)], [40.0], (400, 600, 16.0)),  # objects of 40 pixels keep 16
        ([(3000, 4000)], [20.0], (640, 853, 8.0)),  # and no image is above 640
        ([(300, 600), (600, 300)], [100.0], (300, 600, 32.0)),
        ([(100, 5000)], [50.0], (100, 300, 8.0)),  # long stripes
        ([(200, 200)], [], (200, 200, 32.0)),  # no objects
        ([(200, 200)], [3.0], (200, 200, 8.0)),  # no anchor is under 8 pixels
        ([], [], (320, 320, 32.0)),
    ],
)
def test_sizes_follow_images_and_objects(sizes, sides, wanted):
    found = sizes_for(blank(sizes, sides), "faster-rcnn")
    assert (found["min_size"], found["max_size"], found["anchor"]) == wanted


def test_values_that_are_given_stay():
    data = blank([(1000, 1500)], [40.0])
    assert sizes_for(data, "retinanet", min_size=800) == {"min_size": 800, "max_size": 1200, "anchor": 32.0}
    given = {"min_size": 64, "max_size": 100, "anchor": 5.0}
    assert sizes_for(data, "retinanet", **given) == given


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet", "fcos"])
@pytest.mark.parametrize("finest", [None, 4, 8, 16, 32])
def test_every_detector_can_be_built_for_tiny_objects(detector, finest):
    values = student_preset(detector, "scratch", teacher=False)
    values |= sizes_for(blank([(90, 120)], [2.0]), detector, finest=finest)
    check_architecture(Architecture(classes=("thing",), finest=finest, **values))
