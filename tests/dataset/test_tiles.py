"""RDED's crops and observers, on images whose right answers are known."""

from dataclasses import replace

import pytest
import torch

from distil import Selection, distil_dataset, preset
from distil.data.images.image_set import ImageSet
from distil.dataset.config import Observer, PretrainedObserver, Tiles
from distil.dataset.linear_head import linear_head
from distil.dataset.observers import observer_of
from distil.dataset.selection.tiles import best_crops, factor_of, random_boxes, tiled
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.networks import build_network
from distil.networks.classifier_files import save_classifier
from distil.networks.classifiers import Classifier
from distil.parameterizations.crops import Crops
from distil.rng import stream
from distil.runs import silent


def colored(each: int = 6, side: int = 8) -> ImageSet:
    """Two classes: red and blue squares in one corner of a black image, brighter from image to image."""
    images = torch.zeros(2 * each, 3, side, side, dtype=torch.uint8)
    for index in range(2 * each):
        corner = slice(0, side // 2) if index % 3 else slice(side // 2, side)
        images[index, 2 * (index // each), corner, corner] = 100 + 10 * (index % each)
    labels = torch.arange(2).repeat_interleave(each)
    return ImageSet(images, labels, ("red", "blue"), (0.5,) * 3, (0.25,) * 3, "colored")


def redness(images: torch.Tensor) -> torch.Tensor:
    """Logits that are sure of an image as far as it is red or blue."""
    return 20 * images.mean((2, 3))[:, [0, 2]]


TILES = Tiles(images=6, crops=4, factor=2)


def test_random_boxes_lie_inside_and_have_the_shares_that_were_asked_for():
    boxes = random_boxes(300, 5, 0.08, (40, 60), stream(0, "boxes"))
    y, x, height, width = boxes.unbind(-1)
    assert (y >= 0).all()
    assert (x >= 0).all()
    assert (y + height <= 40).all()
    assert (x + width <= 60).all()
    share = (height * width) / 2400
    assert 0.07 < share.min() < 0.1
    assert 0.98 < share.max() <= 1
    assert abs(share.mean() - 0.54) < 0.02  # uniform between .08 and 1
    whole = random_boxes(2, 1, 1.0, (40, 60), stream(0, "boxes"))
    assert whole.tolist() == [[[0, 0, 40, 60]]] * 2


def test_the_best_crop_of_each_image_then_the_best_images():
    real, cell = colored(), (4, 4)
    found = best_crops(redness, real, 0, 6, TILES, cell, 0, real.size)
    losses = torch.nn.functional.cross_entropy(
        redness(torch.nn.functional.interpolate(found.float() / 255, real.size, mode="bilinear")),
        torch.zeros(6, dtype=torch.long),
        reduction="none",
    )
    assert (losses.diff() > -1e-3).all()  # rounded to 8 bits
    assert torch.equal(best_crops(redness, real, 0, 3, TILES, cell, 0, real.size), found[:3])
    more = best_crops(redness, real, 0, 6, replace(TILES, crops=1), cell, 0, real.size)
    assert found.float().mean() > more.float().mean()  # one crop leaves no choice
    assert not torch.equal(best_crops(redness, real, 0, 3, TILES, cell, 1, real.size), found[:3])


def test_small_batches_find_the_same_crops(monkeypatch):
    real = colored()
    found = best_crops(redness, real, 1, 6, TILES, (4, 4), 0, real.size)
    monkeypatch.setattr("distil.dataset.selection.tiles.SEEN_AT_ONCE", 1)
    assert torch.equal(best_crops(redness, real, 1, 6, TILES, (4, 4), 0, real.size), found)


def test_tiles_decode_into_their_crops():
    crops = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 4, 4) * 30
    placed = Crops.grid(2, (8, 8))
    items = tiled(crops, placed, 2)
    assert items.shape == (2, 3, 8, 8)
    decoded = (placed.decode(items) * 255 / 30).round()
    assert [int(image[0, 4, 4]) for image in decoded] == [0, 2, 4, 6, 1, 3, 5, 7]  # the best ones are first cells
    odd = tiled(torch.full((4, 1, 4, 4), 9, dtype=torch.uint8), Crops.grid(2, (7, 7)), 1)
    assert (odd == 9).all()


@pytest.mark.parametrize(("size", "factor"), [((32, 32), 1), ((127, 300), 1), ((128, 128), 2), ((224, 224), 2)])
def test_the_factor_follows_the_size(size, factor):
    assert factor_of(Tiles(), size) == factor
    assert factor_of(Tiles(factor=3), size) == 3


def test_a_linear_head_separates_what_is_separable():
    embeddings = torch.randn(60, 5, generator=stream(0, "points")) * torch.tensor([1e3, 1.0, 1e-3, 1.0, 1.0]) + 7
    labels = (embeddings[:, 2] > embeddings[:, 2].median()).long()
    head = linear_head(embeddings, labels, 2, 0)
    assert (head(embeddings).argmax(1) == labels).float().mean() > 0.95
    assert torch.equal(head(embeddings), linear_head(embeddings, labels, 2, 0)(embeddings))


def trained(tmp_path, classes, channels: int = 3) -> str:
    network = build_network("convnet1", channels=channels, size=(8, 8), classes=len(classes), width=4, seed=0)
    statistics = {"mean": (0.5,) * channels, "std": (0.25,) * channels, "size": (8, 8), "width": 4}
    save_classifier(
        tmp_path / "c.safetensors", Classifier(network, architecture="convnet1", classes=classes, **statistics)
    )
    return str(tmp_path / "c.safetensors")


def test_a_classifier_of_these_classes_is_asked_as_it_is(tmp_path):
    real = colored()
    observing = observer_of(PretrainedObserver(trained(tmp_path, real.classes)), real, 0, silent)
    network = build_network("convnet1", channels=3, size=(8, 8), classes=2, width=4, seed=0)
    images = real.batch(torch.arange(4)).images
    assert torch.allclose(observing.logits()(images), network((images - 0.5) / 0.25))


def test_a_classifier_of_other_classes_gets_a_linear_head(tmp_path):
    real, told = colored(), []
    observer = PretrainedObserver(trained(tmp_path, ("cat", "dog", "owl")))
    observing = observer_of(observer, real, 0, lambda name, **fields: told.append(fields.get("what")))
    logits = observing.logits()(real.batch(torch.arange(len(real))).images)
    assert logits.shape == (12, 2)
    assert (logits.argmax(1) == real.labels).all()
    assert "training a linear head" in told


@pytest.mark.parametrize("method", ["herding", "k-means", "k-center", "rded"])
def test_every_rule_takes_a_trained_classifier(tmp_path, method):
    model = PretrainedObserver(trained(tmp_path, ("cat", "dog", "owl")))
    settings = replace(preset(method, "custom", 1), observer=model, validation=0.0)
    made = distil_dataset(colored(), settings)
    assert made.params.shape == (2, 3, 8, 8)
    assert made.settings["observer"] == {"kind": "pretrained", "model": model.model}


def test_a_set_of_tiles_is_read_back_and_repeated(tmp_path):
    settings = Selection("rded", observer=Observer("convnet1", 4, 1), tiles=TILES, validation=0.0)
    made = distil_dataset(colored(), settings, folder=tmp_path)
    read = DistilledSet.load(tmp_path / "distilled.safetensors")
    assert torch.equal(read.decoded().images, made.decoded().images)
    assert len(read.decoded()) == 8
    assert torch.equal(distil_dataset(colored(), settings).params, made.params)
    assert not torch.equal(distil_dataset(colored(), replace(settings, seed=1)).params, made.params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": None}, r"rded alone tiles its items: give tiles Tiles\(\) to the rule rded"),
        ({"observer": None}, "the rule rded asks a network about the images: give .*observer"),
        ({"observer": PretrainedObserver()}, "observer.* pretrained needs .*model"),
        ({"ipc": 2, "tiles": replace(TILES, images=8)}, "class 'red' has 6 images and .*ipc.* 2 takes crops of 8"),
        ({"tiles": replace(TILES, images=3)}, "the best 4 crops of a class.*images.* 3 are looked at: raise"),
        ({"tiles": replace(TILES, factor=9)}, "factor.* 9 is larger than the images' side, 8 pixels"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    settings = Selection("rded", observer=Observer("convnet1", 4, 1), tiles=TILES, validation=0.0)
    with pytest.raises(DistilError, match=message):
        distil_dataset(colored(), replace(settings, **changes))


def test_a_classifier_of_grey_images_is_refused_for_color(tmp_path):
    observer = PretrainedObserver(trained(tmp_path, ("cat", "dog"), channels=1))
    with pytest.raises(DistilError, match="sees images of 1 channels, and colored has 3"):
        observer_of(observer, colored(), 0, silent)
