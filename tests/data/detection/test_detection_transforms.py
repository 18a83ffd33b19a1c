from itertools import chain
from typing import Any

import pytest
import torch
from PIL import Image

from distil.data.detection.coco import open_coco
from distil.data.detection.detection_set import Annotations
from distil.data.detection.scenes import SceneSettings, scenes_source
from distil.data.detection.transforms import Augmentation, loader, prepare
from distil.errors import DistilError
from tests.data.detection.test_coco import write_coco

SMALL = SceneSettings(size=48, objects=(0, 3), sides=(10, 24))


@pytest.fixture(scope="module")
def data():
    return scenes_source(11, 1, 1, settings=SMALL).train


def marked(boxes, size=(40, 60), ignored=None) -> tuple[torch.Tensor, Annotations]:
    """A black image on which box i has the color 250 in channel i."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes[:3]):
        image[channel, y1:y2, x1:x2] = 250
    tensor = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    marks = torch.tensor(ignored or [False] * len(boxes))
    return image, Annotations(tensor, torch.arange(1, len(boxes) + 1), marks, (tensor[:, 2:] - tensor[:, :2]).prod(1))


def found_box(channel: torch.Tensor) -> list[int]:
    """The box of the bright pixels."""
    rows, columns = (channel > 0.5).nonzero().unbind(1)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_without_augmentation_nothing_changes():
    image, annotations = marked([(3, 4, 20, 30), (30, 10, 60, 40)])
    ready, targets = prepare(image, annotations, None, 0, index=7)
    assert (ready.dtype, type(ready)) == (torch.float32, torch.Tensor)
    assert torch.equal(ready, image / 255)
    assert targets["boxes"].tolist() == annotations.boxes.tolist()
    assert (targets["boxes"].dtype, targets["labels"].dtype) == (torch.float32, torch.int64)
    assert targets["labels"].tolist() == [1, 2]
    assert targets["areas"].tolist() == [17 * 26, 30 * 30]
    assert (targets["image_id"].dtype, targets["image_id"].shape, int(targets["image_id"])) == (torch.int64, (), 7)
    targets["boxes"] += 1
    assert annotations.boxes[0].tolist() == [3, 4, 20, 30]


def test_ignored_and_thin_boxes_are_no_targets():
    boxes = [(3, 4, 20, 30), (5, 5, 9, 9), (3, 3, 3.5, 30), (1, 1, 2, 2)]
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    tensor = torch.tensor(boxes)
    annotations = Annotations(tensor, torch.arange(1, 5), torch.tensor([False, True, False, False]), tensor[:, 0])
    assert prepare(image, annotations, None, 0)[1]["labels"].tolist() == [1, 4]
    nothing = prepare(
        image, Annotations(tensor[:0], torch.arange(0), torch.zeros(0, dtype=torch.bool), tensor[:0, 0]), None, 0
    )
    assert nothing[1]["boxes"].shape == (0, 4)


def test_a_mirror_takes_the_boxes_along():
    image, annotations = marked([(3, 4, 20, 30)])
    ready, targets = prepare(image, annotations, Augmentation(flip=1.0), 0)
    assert targets["boxes"].tolist() == [[40, 4, 57, 30]]
    assert torch.equal(ready, image.flip(2) / 255)
    flipped = [prepare(image, annotations, Augmentation(), seed)[1]["boxes"][0, 0].item() == 40 for seed in range(60)]
    assert 18 < sum(flipped) < 42
    never = [prepare(image, annotations, Augmentation(flip=0.0), seed)[1]["boxes"][0, 0].item() for seed in range(20)]
    assert set(never) == {3}


@pytest.mark.parametrize("scale", [(0.5, 0.5), (0.4, 0.9), (1.2, 1.2), (0.7, 1.6)])
def test_boxes_follow_the_scale(scale):
    image, annotations = marked([(20, 10, 32, 24), (36, 18, 44, 30)])
    boxes = 0
    for seed in range(15):
        ready, targets = prepare(image, annotations, Augmentation(flip=0.5, scale=scale), seed)
        assert ready.shape == (3, 40, 60)
        for box, label in zip(targets["boxes"].tolist(), targets["labels"].tolist(), strict=True):
            assert found_box(ready[label - 1]) == pytest.approx(box, abs=1.01)
            boxes += 1
    assert boxes > 15


def test_the_scale_is_that_asked_for():
    image, annotations = marked([(28, 18, 32, 22)])
    sides = [
        (box[2] - box[0], box[3] - box[1])
        for seed in range(40)
        for box in prepare(image, annotations, Augmentation(flip=0, scale=(0.5, 1.5)), seed)[1]["boxes"].tolist()
    ]
    assert all(1.9 < width < 6.4 and 1.9 < height < 6.4 for width, height in sides)
    assert min(sides)[0] < 2.5 < 5 < max(sides)[0]


def test_what_a_shrunk_image_leaves_free_has_its_mean_color():
    image = torch.full((3, 40, 60), 100, dtype=torch.uint8)
    _, annotations = marked([(10, 10, 20, 20)])
    ready, _ = prepare(image, annotations, Augmentation(scale=(0.5, 0.5)), 0)
    assert torch.equal(ready, torch.full((3, 40, 60), 100 / 255))


def test_boxes_whose_center_is_cropped_away_are_dropped_and_the_others_clipped():
    image, annotations = marked([(0, 0, 30, 20), (11, 6, 19, 14)])  # the small one about the center of the other
    seen = {"kept": 0, "clipped": 0, "gone": 0, "gone but for a part": 0}
    for seed in range(40):
        ready, targets = prepare(image, annotations, Augmentation(flip=0, scale=(1.9, 1.9)), seed)
        assert targets["labels"].tolist() in ([1, 2], [])
        for box, channel in zip(targets["boxes"], targets["labels"].tolist(), strict=True):
            torch.testing.assert_close(box, torch.tensor(found_box(ready[channel - 1])).float(), rtol=0, atol=1.5)
        kept = len(targets["labels"]) > 0
        seen["kept"] += kept
        seen["clipped"] += kept and targets["boxes"][0, :2].min().item() == 0
        seen["gone"] += not kept
        seen["gone but for a part"] += not kept and bool((ready[0] > 0.5).any())
    assert min(seen.values()) > 0, seen


def test_colors_change_and_boxes_stay(data):
    image, annotations = data[1]
    ready, targets = prepare(image, annotations, Augmentation(flip=0, color=0.5), 3)
    plain, same = prepare(image, annotations, None, 3)
    assert (ready - plain).abs().mean() > 0.02
    assert (ready.min() >= 0, ready.max() <= 1) == (True, True)
    assert torch.equal(targets["boxes"], same["boxes"])


def test_draws_come_from_the_seed_alone_and_leave_the_global_generator(data):
    image, annotations = data[1]
    everything = Augmentation(flip=0.5, color=0.4, scale=(0.6, 1.5))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = prepare(image, annotations, everything, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = prepare(image, annotations, everything, 5)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1]["boxes"], second[1]["boxes"])
    others = [prepare(image, annotations, everything, seed)[0] for seed in range(6, 12)]
    assert not any(torch.equal(first[0], other) for other in others)


def test_one_change_does_not_shift_another(data):
    image, annotations = marked([(3, 4, 20, 30)])
    for seed in range(10):
        flipped = prepare(image, annotations, Augmentation(), seed)[1]["boxes"]
        recolored = prepare(image, annotations, Augmentation(color=0.5), seed)[1]["boxes"]
        assert torch.equal(flipped, recolored)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": 1.1}, "flip is 1.1: it is a probability"),
        ({"color": -0.1}, "color is -0.1: it is the strength"),
        ({"scale": (0.0, 1.0)}, "scale is 0.0 to 1.0: give the lowest and the highest"),
        ({"scale": (1.5, 1.0)}, "scale is 1.5 to 1.0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(DistilError, match=message):
        Augmentation(**settings)


def places(batches) -> list[list[int]]:
    return [[int(targets["image_id"]) for _, targets in batch] for batch in batches]


def same(one, other) -> bool:
    return places([one]) == places([other]) and all(
        torch.equal(image, twin) and torch.equal(targets["boxes"], twins["boxes"])
        for (image, targets), (twin, twins) in zip(one, other, strict=True)
    )


def test_an_epoch_has_every_image_once_in_an_addressed_order(data):
    options: dict[str, Any] = {"batch": 4, "seed": 3}
    orders = [places(loader(data, **options, epoch=epoch)) for epoch in range(4)]
    assert [len(batch) for batch in orders[0]] == [4, 4, 3]
    assert all(sorted(chain(*order)) == list(range(11)) for order in orders)
    assert len({str(order) for order in orders}) == 4
    assert places(loader(data, **options, epoch=2)) == orders[2]
    assert places(loader(data, batch=4, seed=4, epoch=2)) != orders[2]
    assert [*chain(*places(loader(data, batch=5, seed=3, epoch=2)))] == [*chain(*orders[2])]
    assert places(loader(data, **options, epoch=0, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


EVERYTHING = Augmentation(color=0.3, scale=(0.8, 1.3))


def test_draws_depend_on_seed_epoch_and_index_alone(data):
    options: dict[str, Any] = {"seed": 3, "augmentation": EVERYTHING}
    one = {int(t["image_id"]): i for b in loader(data, batch=4, epoch=1, **options) for i, t in b}
    ordered = [sample for b in loader(data, batch=3, epoch=1, shuffle=False, **options) for sample in b]
    assert all(torch.equal(one[index], image) for index, (image, _) in enumerate(ordered))
    later = {int(t["image_id"]): i for b in loader(data, batch=4, epoch=2, **options) for i, t in b}
    assert not any(torch.equal(one[index], later[index]) for index in range(11))


def test_an_epoch_goes_on_where_it_stopped(data):
    options: dict[str, Any] = {"batch": 4, "seed": 3, "epoch": 1, "augmentation": EVERYTHING}
    whole, rest = list(loader(data, **options)), list(loader(data, **options, start=1))
    assert all(same(one, other) for one, other in zip(whole[1:], rest, strict=True))
    assert list(loader(data, **options, start=3)) == []


@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_the_batches_of_one(data, world):
    options: dict[str, Any] = {"batch": 4, "seed": 3, "epoch": 1, "augmentation": EVERYTHING}
    whole = list(loader(data, **options))
    parts = [list(loader(data, **options, rank=rank, world=world)) for rank in range(world)]
    for step, batch in enumerate(whole[:2]):
        for rank in range(world):
            assert same(batch[rank::world], parts[rank][step])
    last = places(part[2] for part in parts)
    assert all(last)
    first_of_epoch = places(whole)[0][: max(0, world - 3)]
    assert sorted(chain(*last)) == sorted(places(whole)[2] + first_of_epoch)


def test_workers_give_the_same_and_leave_the_global_generator(data):
    options: dict[str, Any] = {"batch": 4, "seed": 3, "epoch": 1, "augmentation": EVERYTHING}
    before = torch.get_rng_state()
    alone, together = list(loader(data, **options)), list(loader(data, **options, workers=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_file_is_named_with_and_without_workers(tmp_path, workers):
    files = open_coco(tmp_path / "images", write_coco(tmp_path))
    (tmp_path / "images" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DistilError) as caught:
        list(loader(files, batch=2, seed=0, epoch=0, workers=workers))
    assert str(caught.value).startswith(f"cannot read the image {tmp_path / 'images' / 'b.png'}: ")
    assert "Traceback" not in str(caught.value)


def test_images_of_several_sizes_are_a_list(tmp_path):
    files = open_coco(tmp_path / "images", write_coco(tmp_path))
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "b.png")
    (batch,) = loader(files, batch=3, seed=0, epoch=0, shuffle=False)
    assert [tuple(image.shape) for image, _ in batch] == [(3, 20, 30), (3, 16, 12), (3, 8, 8)]
    assert [len(targets["boxes"]) for _, targets in batch] == [0, 2, 0]  # the crowd is no target


def test_what_cannot_be_dealt_is_refused_at_once(data):
    with pytest.raises(DistilError, match="has no images: nothing to train on"):
        loader(data.subset([]), batch=4, seed=0, epoch=0)
    with pytest.raises(DistilError, match="batch is 2 and cannot be dealt to 3 processes: give 3 or more"):
        loader(data, batch=2, seed=0, epoch=0, world=3)
