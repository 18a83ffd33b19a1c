"""Prototypes of two tiny detectors on noise images: where each came from, which were chosen, what is kept on disk."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distil.data.detection.detection_set import Annotations, DetectionSet
from distil.data.detection.scenes import scenes_source
from distil.detector.adapters import adapt
from distil.detector.gkd.generation import choose_candidates, generate_prototypes
from distil.detector.gkd.pooling import pool_instances
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.settings import PrototypeSettings
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.functional.prototypes import dense_enough, select_prototypes
from distil.networks.detectors import Architecture, build_detector
from distil.types import View

HEIGHT, WIDTH = 64, 96
SMALL = PrototypeSettings(count=4, side=10.0)


def annotate(boxes, labels, ignored=None):
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    marks = torch.zeros(len(rows), dtype=torch.bool) if ignored is None else torch.tensor(ignored)
    areas = (rows[:, 2:] - rows[:, :2]).prod(1)
    return Annotations(rows, torch.tensor(labels, dtype=torch.int64), marks, areas)


@dataclass
class Noise:
    """Noise images with given annotations; remembers which images were read."""

    objects: list[Annotations]
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.objects)

    def image(self, index: int) -> Tensor:
        self.read.append(index)
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)

    def annotations(self, index: int) -> Annotations:
        return self.objects[index]

    def identifier(self, index: int) -> str:
        return f"{index:03d}.jpg"

    def size(self, index: int) -> tuple[int, int]:
        return HEIGHT, WIDTH

    def tags(self, index: int) -> list[frozenset[str]]:
        return [frozenset()] * len(self.objects[index])


def noise(objects: list[Annotations], classes: tuple[str, ...] = ("cat", "dog")) -> DetectionSet:
    return DetectionSet(Noise(objects), classes, "pictures")


class Pyramid(nn.Module):
    """Levels of patches, one linear map each: what a cell sees is exactly its own square of the image."""

    def __init__(self, channels: int, strides: tuple[int, ...], seed: int):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.levels = nn.ModuleList(nn.Conv2d(3, channels, stride, stride=stride) for stride in strides)
        self.dropout = nn.Dropout()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.dropout(level(images)) for level in self.levels)


class Adapter:
    """The members that prototypes need. A view enlarges its images twofold, then normalizes."""

    def __init__(self, channels: int, strides: tuple[int, ...], seed: int, mean: float = 0.5):
        self.model = Pyramid(channels, strides, seed).train()
        self.strides = strides
        self.mean, self.std = (mean,) * 3, (0.5,) * 3

    def view(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> View:
        batch = interpolate(torch.stack(images), scale_factor=2.0)
        enlarged = tuple({**target, "boxes": target["boxes"] * 2} for target in targets)
        sizes = ((2 * HEIGHT, 2 * WIDTH),) * len(images)
        return View((batch - self.mean[0]) / self.std[0], sizes, enlarged, self.mean, self.std)

    def restyle(self, view: View) -> View:
        images = (view.images * view.std[0] + view.mean[0] - self.mean[0]) / self.std[0]
        return replace(view, images=images, mean=self.mean, std=self.std)

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        assert view.mean == self.mean
        assert not self.model.training
        return self.model(view.images)


def make_pair(student_strides=(8, 16, 32), teacher_strides=(8, 16, 32)) -> tuple[Any, Any]:
    return Adapter(5, student_strides, seed=1), Adapter(7, teacher_strides, seed=2, mean=0.3)


def make_pictures(count=8):
    """Two or three objects in each image, of sides from 12 to 40 pixels."""
    objects = []
    for index in range(count):
        generator = torch.Generator().manual_seed(100 + index)
        number = 2 + index % 2
        corner = torch.rand(number, 2, generator=generator) * torch.tensor([50.0, 20.0])
        extent = 12 + 28 * torch.rand(number, 2, generator=generator)
        labels = [1 + (index + i) % 2 for i in range(number)]
        objects.append(annotate(torch.cat([corner, corner + extent], dim=1).tolist(), labels))
    return noise(objects)


def pooled_alone(adapter: Adapter, data: DetectionSet, index: int, box: Tensor) -> Tensor:
    """One object of one image, pooled on every level."""
    image = interpolate(data.image(index)[None] / 255, scale_factor=2.0)
    adapter.model.eval()
    with torch.no_grad():
        maps = adapter.model((image - adapter.mean[0]) / adapter.std[0])
    return pool_instances(maps, adapter.strides, [box[None] * 2])[:, 0]


def test_each_prototype_is_the_object_that_it_says():
    student, teacher = make_pair((4, 8, 16), (8, 16, 32))
    data = make_pictures()
    made = generate_prototypes(student, teacher, data, SMALL)
    assert made.strides == (8, 16)
    assert len(made) == 2 * 2 * 4
    assert made.student.shape == (16, 5)
    assert made.teacher.shape == (16, 7)
    for row in range(len(made)):
        index, level = int(made.images[row]), int(made.levels[row])
        boxes, labels = data.annotations(index).boxes, data.annotations(index).labels
        which = int((boxes == made.boxes[row]).all(1).nonzero())
        assert labels[which] == made.labels[row]
        assert made.identifiers[row] == f"{index:03d}.jpg"
        for features, adapter, first in ((made.student, student, 1), (made.teacher, teacher, 0)):
            alone = pooled_alone(adapter, data, index, made.boxes[row])[first + level]
            torch.testing.assert_close(features[row], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"unique": True}, {"orthogonal": True}, {"alpha": 0.0, "quantile": 0.0}])
def test_they_are_those_that_the_selection_chooses_level_by_level(options):
    student, teacher = make_pair()
    data, settings = make_pictures(10), replace(SMALL, count=5, **options)
    made = generate_prototypes(student, teacher, data, settings)
    places = [(i, box, int(label)) for i in range(10) for box, label in zip(*objects_of(data, i), strict=True)]
    order = []
    for level in range(3):
        for label in (1, 2):
            own = [(i, box) for i, box, its in places if its == label]
            a = torch.stack([pooled_alone(student, data, i, box)[level] for i, box in own])
            b = torch.stack([pooled_alone(teacher, data, i, box)[level] for i, box in own])
            dense = dense_enough(a, b, quantile=settings.quantile, bandwidth=settings.bandwidth)
            chosen = select_prototypes(
                a,
                b,
                settings.count,
                alpha=settings.alpha,
                candidates=dense,
                unique=settings.unique,
                orthogonal=settings.orthogonal,
            )
            order += [(level, label, own[row][0], own[row][1].tolist()) for row in chosen.tolist()]
    columns = (made.levels, made.labels, made.images, made.boxes)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == order


def objects_of(data: DetectionSet, index: int) -> tuple[Tensor, Tensor]:
    return data.annotations(index).boxes, data.annotations(index).labels


def test_the_batch_does_not_matter_and_every_image_is_read_once():
    student, teacher = make_pair()
    whole, single = make_pictures(), make_pictures()
    sources = [data.pictures for data in (whole, single)]
    together = generate_prototypes(student, teacher, whole, SMALL, batch=8)
    alone = generate_prototypes(student, teacher, single, SMALL, batch=1)
    assert [sorted(source.read) for source in sources if isinstance(source, Noise)] == [list(range(8))] * 2
    assert torch.equal(together.boxes, alone.boxes)
    torch.testing.assert_close(together.student, alone.student)
    torch.testing.assert_close(together.teacher, alone.teacher)


def test_modes_random_state_and_gradients_are_left_alone():
    student, teacher = make_pair()
    student.model.levels[1].eval()
    before = [module.training for module in student.model.modules()]
    state = torch.get_rng_state()
    made = generate_prototypes(student, teacher, make_pictures(), SMALL)
    assert [module.training for module in student.model.modules()] == before
    assert len(set(before)) == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert not made.student.requires_grad
    assert not made.student.is_inference()
    assert all(parameter.requires_grad and parameter.grad is None for parameter in student.model.parameters())


def test_modes_are_restored_after_an_error():
    student, teacher = make_pair()
    with torch.no_grad():
        next(teacher.model.parameters())[0, 0, 0, 0] = torch.nan
    with pytest.raises(DistilError) as caught:
        generate_prototypes(student, teacher, make_pictures(), SMALL)
    assert str(caught.value) == (
        "the teacher's features of pictures are not finite, so no prototypes can be chosen. Its weights or its "
        "training have broken: use the last good checkpoint, a lower learning rate or precision 32."
    )
    assert student.model.training
    assert teacher.model.training


def test_the_same_images_serve_at_every_epoch_and_the_seed_draws_others():
    student, teacher = make_pair()
    data, settings = make_pictures(12), replace(SMALL, images=3)
    first, later, other = (
        generate_prototypes(student, teacher, data, settings, seed=seed, epoch=epoch)
        for seed, epoch in ((0, 0), (0, 5), (1, 0))
    )
    assert (first.epoch, later.epoch) == (0, 5)
    assert torch.equal(first.images, later.images)
    assert torch.equal(first.student, later.student)
    assert set(first.images.tolist()) != set(other.images.tolist())


def test_objects_must_be_large_and_not_ignored():
    boxes = [[0, 0, 30, 31], [0, 0, 31, 31], [0, 0, 90, 30], [5, 5, 50, 50], [9, 9, 9, 60], [1, 1, 40, 40]]
    data = noise([annotate(boxes, [1] * 6, [False, False, False, True, False, False]), annotate([], [])], ("cat",))
    found = choose_candidates(data, PrototypeSettings(), seed=0)
    assert found.boxes.tolist() == [boxes[1], boxes[5]]
    assert found.images.tolist() == [0, 0]
    assert found.notes == ()


def test_at_most_so_many_images_of_a_class_and_no_object_of_another():
    big = [0, 0, 40, 40]
    data = noise([annotate([big, big, big], [1, 1, 2]) for _ in range(9)])
    found = choose_candidates(data, replace(SMALL, images=4), seed=3)
    for label, boxes_an_image in ((1, 2), (2, 1)):
        own = found.images[found.labels == label]
        assert len(own.unique()) == 4
        assert len(own) == 4 * boxes_an_image
    assert set(found.images[found.labels == 1].tolist()) != set(found.images[found.labels == 2].tolist())
    assert (found.images.diff() >= 0).all()


def test_a_class_of_small_objects_gives_the_largest_fifth_of_them():
    boxes = [[0, 0, side, side + 1] for side in (3, 9, 7, 5, 4, 8)]
    wide = [0, 0, 60, 2]
    data = noise([annotate([*boxes, wide], [1] * 7), annotate([[0, 0, 50, 50]], [3])], ("cat", "dog", "cow"))
    found = choose_candidates(data, PrototypeSettings(), seed=0)
    assert found.boxes[found.labels == 1].tolist() == [boxes[1], boxes[5]]
    assert found.notes == (
        "no box of cat is wider and higher than 30 pixels, so its 2 largest were taken",
        "dog has no object in pictures, so it has no prototype",
    )
    made = generate_prototypes(*make_pair(), data, PrototypeSettings())
    assert made.notes == found.notes
    assert 2 not in made.labels


@pytest.mark.parametrize("objects", [[], [annotate([], [])], [annotate([[0, 0, 40, 40]], [1], [True])]])
def test_data_without_a_usable_object_are_refused(objects):
    boxes = sum(len(each.labels) for each in objects)
    with pytest.raises(DistilError) as caught:
        generate_prototypes(*make_pair(), noise(objects), SMALL)
    assert str(caught.value) == (
        f"pictures holds no object that could become a prototype: {boxes} boxes in {len(objects)} images, all ignored, "
        "of no area or of another class. Check its annotations and classes."
    )


def test_a_view_that_drops_boxes_is_refused():
    class Dropping(Adapter):
        def view(self, images, targets):
            view = super().view(images, targets)
            return replace(view, targets=tuple({k: v[:1] for k, v in target.items()} for target in view.targets))

    student: Any = Dropping(5, (8, 16), seed=1)
    teacher: Any = Adapter(7, (8, 16), seed=2)
    with pytest.raises(DistilError, match=r"the view of Dropping has other boxes than it was given\. A view must keep"):
        generate_prototypes(student, teacher, make_pictures(), SMALL)


@pytest.mark.parametrize(("small", "large"), [("retinanet", "faster-rcnn"), ("faster-rcnn", "fcos")])
def test_with_real_detectors_and_scenes(small, large, tmp_path):
    scenes = scenes_source(train=6, val=1, test=1).train
    common: dict[str, Any] = {"classes": scenes.classes, "norm": "group", "min_size": 96, "head_convs": 1}
    common |= {"representation": 32}
    student = adapt(build_detector(Architecture(small, "resnet18", channels=32, **common), seed=0))
    teacher = adapt(build_detector(Architecture(large, "resnet18", channels=64, mean=(0.3,) * 3, **common), seed=1))
    made = generate_prototypes(student, teacher, scenes, replace(SMALL, side=16.0))
    assert made.strides == (8, 16, 32, 64)
    assert made.student.shape == (len(made), 32)
    assert made.teacher.shape == (len(made), 64)
    assert student.model.training
    student.model.eval()
    teacher.model.eval()
    for row in range(0, len(made), 7):
        index = int(made.images[row])
        image = scenes.image(index) / 255
        target = {"boxes": made.boxes[row : row + 1], "labels": made.labels[row : row + 1]}
        assert (scenes.annotations(index).boxes == made.boxes[row]).all(1).any()
        for adapter, features in ((student, made.student), (teacher, made.teacher)):
            view = adapter.view([image], [target])
            with torch.no_grad():
                pooled = pool_instances(adapter.pyramid(view), adapter.strides, [view.targets[0]["boxes"]])
            level = adapter.strides.index(made.strides[made.levels[row]])
            torch.testing.assert_close(features[row], pooled[level, 0], rtol=1e-3, atol=1e-4)
    made.save(tmp_path / "made")
    assert_same(PrototypeSet.load(tmp_path / "made"), made)


def make_set() -> PrototypeSet:
    return PrototypeSet(
        student=torch.arange(10.0).view(5, 2),
        teacher=torch.arange(15.0).view(5, 3),
        levels=torch.tensor([0, 0, 0, 1, 1]),
        labels=torch.tensor([1, 1, 2, 1, 2]),
        images=torch.tensor([4, 2, 2, 7, 4]),
        boxes=torch.arange(20.0).view(5, 4),
        classes=("cat", "dog"),
        strides=(8, 16),
        source="pictures",
        epoch=3,
        identifiers=("e.jpg", "c.jpg", "c.jpg", "h.jpg", "e.jpg"),
        notes=("dogs are small",),
    )


def assert_same(a: PrototypeSet, b: PrototypeSet) -> None:
    for name in ("student", "teacher", "levels", "labels", "images", "boxes"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in ("classes", "strides", "source", "epoch", "identifiers", "notes"):
        assert getattr(a, name) == getattr(b, name), name


def test_a_set_comes_back_from_disk(tmp_path):
    path = tmp_path / "prototypes.safetensors"
    make_set().save(path)
    assert_same(PrototypeSet.load(path), make_set())
    assert_same(make_set().to("cpu"), make_set())


NONSENSE = [
    ({"classes": ["cat", "cat"]}, "the class name 'cat' is given twice: names must differ."),
    ({"classes": [1, 2]}, "classes are (1, 2): give at least one name, as text."),
    ({"classes": "cat"}, "classes are 'cat': give a list of names."),
    ({"strides": []}, "strides are (): expected rising whole numbers of pixels."),
    ({"strides": [16, 8]}, "strides are (16, 8)"),
    ({"strides": [8, 10**300]}, "strides are (8, 1000"),
    ({"strides": 8}, "strides are 8"),
    ({"source": None}, "source is None: it must be text."),
    ({"epoch": "3"}, "epoch is '3': expected a whole number, at least 0."),
    ({"epoch": -1}, "epoch is -1"),
    ({"identifiers": ["a"]}, "there are 1 identifiers for 5 prototypes."),
    ({"identifiers": [1, 2, 3, 4, 5]}, "identifiers are (1, 2, 3, 4, 5): expected a list of text."),
    ({"notes": {"a": 1}}, "notes are {'a': 1}: expected a list of text."),
    ({"labels": torch.tensor([1, 1, 2, 1, 3])}, "labels reach from 1 to 3: expected 1 to 2."),
    ({"labels": torch.tensor([1, 1, 2, 1, 0])}, "labels reach from 0 to 2: expected 1 to 2."),
    ({"labels": torch.tensor([1.0, 1, 2, 1, 2])}, "labels are torch.float32 of shape [5]: expected one int64 each."),
    ({"levels": torch.tensor([0, 0, 0, 1, 2])}, "levels reach from 0 to 2: expected 0 to 1."),
    ({"images": torch.tensor([-1, 2, 2, 7, 4])}, "images reach from -1 to 7"),
    ({"student": torch.full((5, 2), torch.nan)}, "student holds values that are NaN or infinite."),
    ({"teacher": torch.zeros(5, 3, dtype=torch.int64)}, "teacher is torch.int64 of shape [5, 3]"),
    ({"teacher": torch.zeros(5, 3, dtype=torch.complex64)}, "teacher is torch.complex64 of shape [5, 3]"),
    ({"student": torch.zeros(5)}, "student is torch.float32 of shape [5]"),
    ({"boxes": torch.zeros(5, 3)}, "boxes have 3 numbers each: expected 4."),
    ({"boxes": torch.tensor([[1.0, 1, 4, 4]] * 4 + [[0.0, 0, -8, 8]])}, "box 4 has no area: [0.0, 0.0, -8.0, 8.0]."),
    ({"spare": torch.zeros(5)}, "it holds a tensor 'spare', which is unknown."),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_nonsense_in_a_file_is_refused_by_field(change, message, tmp_path):
    path = tmp_path / "prototypes.safetensors"
    make_set().save(path)
    tensors, header = load_tensors(path)
    parts = {name: value for name, value in change.items() if isinstance(value, Tensor)}
    save_tensors(path, tensors | parts, header | {name: x for name, x in change.items() if name not in parts})
    with pytest.raises(DistilError) as caught:
        PrototypeSet.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert str(caught.value).endswith("Copy the file again, or generate the prototypes again.")


def test_every_flipped_bit_of_a_file_is_refused(tmp_path):
    path = tmp_path / "prototypes.safetensors"
    make_set().save(path)
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DistilError, match=r"prototypes\.safetensors"):
            PrototypeSet.load(path)


def test_a_file_of_before_without_a_checksum_loads(tmp_path):
    path = tmp_path / "prototypes.safetensors"
    make_set().save(path)
    tensors, header = load_tensors(path)
    save_file(tensors, path, {"distil": json.dumps(header)})
    assert_same(PrototypeSet.load(path), make_set())


def test_the_prototypes_of_a_level_and_of_a_class():
    made = make_set()
    assert made.of(0).student.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert made.of(0, 1).boxes.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert made.of(0, 1).identifiers == ("e.jpg", "c.jpg")
    assert made.of(1, 2).teacher.tolist() == [[12, 13, 14]]
    assert len(made.of(2)) == 0
    assert replace(made, identifiers=()).of(0).identifiers == ()


def test_a_set_describes_itself():
    assert make_set().describe() == (
        "5 prototypes from 3 images of pictures, chosen at epoch 3\n"
        "  stride 8: 3, 1 to 2 of each of 2 classes\n"
        "  stride 16: 2, 1 of each of 2 classes\n"
        "  note: dogs are small"
    )


def test_files_of_something_else(tmp_path):
    path = tmp_path / "file"
    make_set().save(path)
    tensors, header = load_tensors(path)

    def loading(**changed) -> str:
        parts = {name: value for name, value in tensors.items() if changed.get(name, value) is not None}
        parts |= {name: value for name, value in changed.items() if isinstance(value, Tensor)}
        plain = {
            name: value for name, value in changed.items() if not isinstance(value, Tensor) and name not in tensors
        }
        save_tensors(path, parts, {**header, **plain})
        with pytest.raises(DistilError) as caught:
            PrototypeSet.load(path)
        return str(caught.value)

    assert loading(kind="detector") == (
        f"{path} holds detector, not prototypes. Give a file that PrototypeSet.save wrote."
    )
    assert loading(format_version=2) == (
        f"{path}: its format version is 2, and this distil reads 1 to 1. Upgrade with pip install -U distil, or "
        "generate the prototypes again."
    )
    assert loading(boxes=None) == f"{path}: it lacks boxes. Generate the prototypes again."
    assert loading(boxes=torch.zeros(4, 4)) == (
        f"{path}: its parts differ in length, so it is damaged. Generate the prototypes again."
    )
    with pytest.raises(DistilError, match="no such file"):
        PrototypeSet.load(tmp_path / "missing")
