"""What adapters of torchvision's detectors have in common: the one shared view, the pyramid, and addressed sampling."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distil.errors import DistilError
from distil.rng import seed_at
from distil.types import View

PROBE = 256
"""Side of the black image whose maps tell a detector's strides."""
MOST_INSTANCES = 128
"""Largest number of instances of an image."""


class TorchvisionAdapter:
    """The members of an adapter that are the same for all of torchvision's detectors."""

    model: Any
    classes: int

    def view(
        self,
        images: Sequence[Float[Tensor, "3 _h _w"]],
        targets: Sequence[dict[str, Tensor]],
        *,
        seeds: Sequence[int] | None = None,
    ) -> View:
        return make_view(self.model, images, targets, seeds, classes=self.classes)

    def restyle(self, view: View) -> View:
        return restyle(view, self.model)

    def pyramid(self, view: View) -> tuple[Tensor, ...]:
        return pyramid(self.model, view)

    def predict(self, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[dict[str, Tensor]]:
        return predict(self.model, images)


def make_view(
    model: Any,
    images: Sequence[Float[Tensor, "3 _h _w"]],
    targets: Sequence[dict[str, Tensor]],
    seeds: Sequence[int] | None = None,
    *,
    classes: int,
) -> View:
    """Images as a detector sees them: normalized, resized and padded by its own transform, on its device.

    images: in [0, 1]. targets: of each image `boxes`, float (m, 4), xyxy in its pixels, and `labels`, int64 (m,), 1
    to classes; other entries are left out. In training mode torchvision draws each image's size among the transform's
    `min_size`: at the address of the image's seed, or without seeds from the global generator.

    Raises: DistilError on images and targets that do not fit each other, that no detector takes, or boxes without area.
    """
    _check(images, targets, seeds)
    _check_objects(targets, classes)
    transform, device = model.transform, device_of(model)
    pictures, resized = [], []
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        item = {"boxes": target["boxes"].to(device).float(), "labels": target["labels"].to(device)}
        with _drawing_at(seeds, index, "size", torch.device("cpu")):  # torchvision draws it on the CPU
            picture, item = transform.resize(transform.normalize(image.to(device)), item)
        pictures.append(picture)
        resized.append(item)
    sizes = tuple((picture.shape[1], picture.shape[2]) for picture in pictures)
    batch = transform.batch_images(pictures, size_divisible=transform.size_divisible)
    addressed = None if seeds is None else tuple(seeds)
    return View(batch, sizes, tuple(resized), tuple(transform.image_mean), tuple(transform.image_std), addressed)


def restyle(view: View, model: Any) -> View:
    """The view with the detector's own mean and std in place of those that it has; the padding stays 0."""
    mean, std = tuple(model.transform.image_mean), tuple(model.transform.image_std)
    if (mean, std) == (view.mean, view.std):
        return view
    images = view.images

    def channels(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)

    restyled = (images * channels(view.std) + channels(view.mean) - channels(mean)) / channels(std)
    height, width = images.shape[2:]
    sizes = torch.tensor(view.sizes, device=images.device)
    rows = torch.arange(height, device=images.device) < sizes[:, :1]
    columns = torch.arange(width, device=images.device) < sizes[:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return View(restyled.where(inside, 0), view.sizes, view.targets, mean, std, view.seeds)


def feature_maps(model: Any, images: Float[Tensor, "n 3 h w"]) -> OrderedDict[str, Tensor]:
    """The detector's pyramid by torchvision's names, finest first, in at least 32 bits.

    Under autocast maps come in 16 bits, and torchvision makes anchors of the maps' type: in bfloat16 those of a large
    image would be several pixels off.
    """
    maps = model.backbone(images)
    named = OrderedDict([("0", maps)]) if isinstance(maps, Tensor) else maps
    return OrderedDict((name, widened(x)) for name, x in named.items())


def pyramid(model: Any, view: View) -> tuple[Tensor, ...]:
    """The detector's feature maps of any detector's view, finest first."""
    return tuple(feature_maps(model, restyle(view, model).images).values())


def widened(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in 16 bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def probe(model: Any) -> tuple[tuple[int, ...], int, OrderedDict[str, Tensor]]:
    """Strides of a detector's maps, their channels, and the maps of a black image, with no trace left in the detector.

    Raises: DistilError when the levels differ in channels or their strides are no whole numbers.
    """
    with torch.no_grad(), evaluating(model), full_precision(model):
        first = next(model.parameters())
        maps = feature_maps(model, torch.zeros(1, 3, PROBE, PROBE, dtype=first.dtype, device=first.device))
    sizes = [(x.shape[2], x.shape[3]) for x in maps.values()]
    channels = {x.shape[1] for x in maps.values()}
    if len(channels) != 1 or any(h != w or PROBE % h for h, w in sizes):
        raise DistilError(
            f"the pyramid of this {type(model).__name__} cannot be compared with another: its levels have "
            f"{sorted(channels)} channels and, of an image of {PROBE} x {PROBE} pixels, {sizes} cells. Every level "
            f"must have the same channels and a whole number of pixels between its cells, a divisor of {PROBE}."
        )
    return tuple(PROBE // h for h, _ in sizes), channels.pop(), maps


@torch.no_grad()
def predict(model: Any, images: Sequence[Float[Tensor, "3 _h _w"]]) -> list[dict[str, Tensor]]:
    """torchvision's detections of each image, in eval mode and full precision: boxes (m, 4) in the image's pixels,
    scores (m,), best first, and labels (m,)."""
    device = device_of(model)
    with evaluating(model), full_precision(model):
        return model([image.to(device) for image in images])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards each of its modules is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def full_precision(model: nn.Module) -> Any:
    """A context without autocast on the model's device."""
    return torch.autocast(device_of(model).type, enabled=False)


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def check_training(model: nn.Module) -> None:
    """Refuse to train a detector that is in eval mode, of which torchvision computes no losses."""
    if not model.training:
        raise DistilError(
            f"this {type(model).__name__} is in eval mode, so it has no losses. Call .train() on it before a training "
            "pass; to have it teach, pass the student's trace as `regions`."
        )


class ImageSampler:
    """A sampler of torchvision's, whose draws for an image depend on the image's seed alone.

    seeds: None leaves it as it is. count: afterwards, how many anchors or proposals it sampled in the batch.
    """

    def __init__(self, sampler: Callable[[list[Tensor]], tuple[list[Tensor], list[Tensor]]], view: View, address: str):
        self.sampler, self.seeds, self.address = sampler, view.seeds, address
        self.count: Float[Tensor, ""] | None = None

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if self.seeds is None:
            positive, negative = self.sampler(labels)
        else:
            positive, negative = [], []
            for index, item in enumerate(labels):
                with _drawing_at(self.seeds, index, self.address, item.device):
                    first, second = self.sampler([item])
                positive += first
                negative += second
        self.count = torch.cat([*positive, *negative]).sum().float()
        return positive, negative


@contextlib.contextmanager
def sampling(part: Any, view: View, address: str) -> Iterator[ImageSampler]:
    """While active, a part of a detector (rpn, roi_heads) samples by an ImageSampler."""
    before = part.fg_bg_sampler
    part.fg_bg_sampler = ImageSampler(before, view, address)
    try:
        yield part.fg_bg_sampler
    finally:
        part.fg_bg_sampler = before


def image_of(rows: Sequence[Tensor]) -> Int[Tensor, " i"]:
    """The image of each row, where there is one tensor of rows for each image."""
    many = torch.tensor([len(item) for item in rows])
    return torch.arange(len(rows)).repeat_interleave(many).to(rows[0].device)


def some_instances(images: Int[Tensor, " i"], view: View) -> Int[Tensor, " j"]:
    """Positions of at most MOST_INSTANCES instances of each image, at random at the image's address, in their order.

    images: the image of each instance, ascending.
    """
    counts = torch.bincount(images, minlength=len(view)).tolist()
    if max(counts, default=0) <= MOST_INSTANCES:
        return torch.arange(len(images), device=images.device)
    kept, start = [], 0
    for index, count in enumerate(counts):
        rows = torch.arange(count)
        if count > MOST_INSTANCES:
            with _drawing_at(view.seeds, index, "instances", torch.device("cpu")):
                rows = torch.randperm(count)[:MOST_INSTANCES].sort().values
        kept.append(start + rows)
        start += count
    return torch.cat(kept).to(images.device)


@contextlib.contextmanager
def _drawing_at(seeds: Sequence[int] | None, index: int, address: str, device: torch.device) -> Iterator[None]:
    """Draws on the device come from an image's seed, and the global generators are left as they were."""
    if seeds is None:
        yield
        return
    seed = seed_at(seeds[index], address)
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the devices' generators too
            yield
        return
    kind = torch.get_device_module(device)
    with torch.random.fork_rng(devices=[device], device_type=device.type), kind.device(device):
        kind.manual_seed(seed)  # of this device alone
        yield


def _check(images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], seeds: Sequence[int] | None) -> None:
    if not images or len(images) != len(targets) or (seeds is not None and len(seeds) != len(images)):
        given = f"{len(images)} images, {len(targets)} targets" + ("" if seeds is None else f" and {len(seeds)} seeds")
        raise DistilError(f"a view was asked of {given}: give as many of each, and at least one.")
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise DistilError(
                f"image {index} has shape {tuple(image.shape)} and type {image.dtype}: give color images of shape "
                "(3, height, width), floating point, in [0, 1] (uint8 / 255)."
            )
        if missing := {"boxes", "labels"} - set(target):
            raise DistilError(f"the target of image {index} has no {sorted(missing)[0]!r}: give boxes and labels.")
        boxes, labels = target["boxes"], target["labels"]
        fits = boxes.ndim == 2 and boxes.shape[1] == 4 and labels.shape == boxes.shape[:1]
        if not fits or not boxes.is_floating_point() or labels.dtype != torch.int64:
            raise DistilError(
                f"the target of image {index} has boxes {tuple(boxes.shape)} of {boxes.dtype} and labels "
                f"{tuple(labels.shape)} of {labels.dtype}: give (m, 4) floating point and (m,) int64; with no object, "
                "m = 0."
            )


def _check_objects(targets: Sequence[dict[str, Tensor]], classes: int) -> None:
    """Refuse boxes and labels that no loss is defined on; looks at all values at once."""
    boxes = torch.cat([target["boxes"] for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    whole = (boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1)
    fine = whole & (labels >= 1) & (labels <= classes)
    if bool(fine.all()):
        return
    row = int((~fine).nonzero()[0])
    index = int(image_of([target["boxes"] for target in targets])[row])
    what = f"box {[round(x, 2) for x in boxes[row].tolist()]}" if not whole[row] else f"label {int(labels[row])}"
    raise DistilError(
        f"image {index} has the {what}: boxes are x1 < x2, y1 < y2 in its pixels, and labels 1 to {classes}, the "
        "classes of this detector. Correct the annotations."
    )
