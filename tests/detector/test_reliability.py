"""Reliability of the true objects of a data set."""

from dataclasses import replace

import pytest
import torch

from distil.data.detection.scenes import scenes_source
from distil.detector.adapters import adapt, freeze
from distil.detector.gkd.generation import generate_prototypes
from distil.detector.gkd.reliability import measure_objects
from distil.detector.settings import PrototypeSettings
from distil.functional.boxes import mean_over_boxes
from distil.networks.detectors import Architecture, build_detector
from distil.report.detector_report import reliability_by_tag


@pytest.fixture(scope="module")
def pair():
    data = scenes_source(6, 1, 3).train
    values = {"min_size": 64, "max_size": 64, "norm": "group", "anchor": 16.0, "head_convs": 1}
    student, teacher = (
        adapt(build_detector(Architecture("retinanet", "timm:test_resnet", data.classes, channels=c, **values), seed=c))
        for c in (16, 32)
    )
    freeze(teacher)
    settings = PrototypeSettings(count=3, side=5.0, images=6)
    return student, teacher, generate_prototypes(student, teacher, data, settings), data


def test_every_object_that_is_not_ignored_is_measured_in_order(pair):
    student, teacher, prototypes, data = pair
    student.model.train()
    found = measure_objects(student, teacher, prototypes, data, batch=4)
    assert student.model.training
    expected = [(i, place) for i in range(len(data)) for place in range(len(data.annotations(i)))]
    assert list(zip(found.images.tolist(), found.places.tolist(), strict=True)) == expected
    for image, place, box, label in zip(found.images, found.places, found.boxes, found.labels, strict=True):
        annotations = data.annotations(int(image))
        assert torch.equal(annotations.boxes[place], box)
        assert annotations.labels[place] == label
    assert found.values.min() >= 0
    assert found.values.max() <= 1
    assert found.values.std() > 0


def test_a_value_is_that_of_the_equation(pair):
    student, teacher, prototypes, data = pair
    found = measure_objects(student, teacher, prototypes, data)
    row = 2
    image, box, label = int(found.images[row]), found.boxes[row], int(found.labels[row])
    picture = data.image(image).float() / 255
    target = {"boxes": box[None], "labels": torch.tensor([label])}
    nearest = []
    student.model.eval()
    with torch.no_grad():
        view = student.view([picture], [target])
        seen = view.targets[0]["boxes"]
        wanted = 4 * 2 ** max(0, int(((seen[0, 2:] - seen[0, :2]).prod().sqrt() / 56).log2().floor()))
        level = min(range(len(student.strides)), key=lambda i: abs(student.strides[i] - max(wanted, 8)))
        some = prototypes.of(level, label)
        for adapter, basis in ((student, some.student), (teacher, some.teacher)):
            maps = adapter.pyramid(adapter.restyle(view))[level][0]
            feature = mean_over_boxes(maps, seen, student.strides[level])[0]
            nearest.append(torch.nn.functional.cosine_similarity(feature[None], basis).max())
    assert found.values[row] == pytest.approx(float(1 - (nearest[0] - nearest[1]).abs()), abs=1e-5)


def test_a_detector_agrees_with_itself(pair):
    student, _, prototypes, data = pair
    same = replace(prototypes, teacher=prototypes.student)
    assert torch.allclose(measure_objects(student, student, same, data).values, torch.ones(1), atol=1e-6)


def test_means_by_tag_count_every_object(pair):
    student, teacher, prototypes, data = pair
    found = measure_objects(student, teacher, prototypes, data)
    table = reliability_by_tag(found, data)
    tags = [tag for i in range(len(data)) for tag in data.tags(i)]
    for name, (count, mean, error) in table.items():
        own = [not tag if name == "clear" else name in tag for tag in tags]
        values = found.values[torch.tensor(own)]
        assert count == len(values)
        assert mean == pytest.approx(float(values.mean()), abs=1e-6)
        if count > 1:
            assert error == pytest.approx(float(values.std() / count**0.5), abs=1e-6)
