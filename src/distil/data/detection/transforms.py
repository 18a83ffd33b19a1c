"""Images with boxes made ready for a detector's training: random changes, and batches in an addressed order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distil.data.detection.detection_set import Annotations, DetectionSet
from distil.errors import DistilError
from distil.rng import seed_at, stream

LEAST_SIDE = 1.0
"""Pixels: boxes narrower or lower than this are no targets. A regression loss takes the logarithm of their sides."""

Sample = tuple[Float[Tensor, "3 h w"], dict[str, Tensor]]
"""An image in [0, 1] and its targets: see `prepare`."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image."""

    flip: float = 0.5
    """Probability that it is mirrored left to right."""
    color: float = 0.0
    """Strength of the random changes of brightness, contrast and saturation: factors from 1 - color to 1 + color."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the random enlargement. The image keeps its size: what is enlarged is cropped at a random place, what is
    shrunk is put at a random place on the mean color."""

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise DistilError(f"flip is {self.flip}: it is a probability, between 0 and 1.")
        if not 0 <= self.color <= 1:
            raise DistilError(f"color is {self.color}: it is the strength of changes, between 0 and 1.")
        if not 0 < self.scale[0] <= self.scale[1] < float("inf"):
            raise DistilError(
                f"scale is {self.scale[0]} to {self.scale[1]}: give the lowest and the highest enlargement, above 0."
            )


def prepare(
    image: UInt8[Tensor, "3 h w"],
    annotations: Annotations,
    augmentation: Augmentation | None,
    seed: int,
    *,
    index: int = 0,
) -> Sample:
    """One image as float in [0, 1] and its targets, as torchvision's detectors take them.

    augmentation: None to leave the image as it is. seed: of all its draws; no other generator is touched.
    index: the image's place in its set, for `image_id`.

    Targets: boxes, float32 (m, 4), xyxy; labels, int64 (m,), 1 to k; areas, float32 (m,), of the boxes; objects, int64
    (m,), the row of each in the annotations; image_id, int64 (). Boxes follow the image. Ignored objects are left out;
    so are boxes with a side under LEAST_SIDE pixels, and those whose center is cropped away. The image's size never
    changes.

    Differs: torchvision's detectors resize every image to one size, which would undo a random scale that changes the
    image's size; this one enlarges or shrinks what the image shows, as large scale jittering does (Ghiasi et al.,
    "Simple Copy-Paste is a Strong Data Augmentation Method", 2021).
    """
    from torchvision.transforms.v2 import functional

    wanted = ~annotations.ignored
    boxes, labels = annotations.boxes[wanted], annotations.labels[wanted]
    if augmentation is not None:
        if torch.rand((), generator=stream(seed, "sources", "prepare", "flip")).item() < augmentation.flip:
            image = functional.horizontal_flip(image)
            boxes = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
            boxes = boxes + boxes.new_tensor([image.shape[2], 0, image.shape[2], 0])
        if augmentation.scale != (1.0, 1.0):
            image, boxes = _rescale(image, boxes, augmentation.scale, stream(seed, "sources", "prepare", "scale"))
        if augmentation.color:
            image = _recolor(image, augmentation.color, seed_at(seed, "sources", "prepare", "colour"))
    limit = boxes.new_tensor([image.shape[2], image.shape[1]])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    boxes = torch.minimum(boxes.clamp_min(0), limit.repeat(2))
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = ((sides >= LEAST_SIDE) & (middle >= 0) & (middle <= limit)).all(1)
    targets = {
        "boxes": boxes[kept],
        "labels": labels[kept],
        "areas": sides[kept].prod(1),
        "objects": wanted.nonzero().flatten()[kept],
        "image_id": torch.tensor(index),
    }
    return image.float().div_(255), targets


def _rescale(
    image: UInt8[Tensor, "3 h w"], boxes: Float[Tensor, "m 4"], scale: tuple[float, float], generator: torch.Generator
) -> tuple[UInt8[Tensor, "3 h w"], Float[Tensor, "m 4"]]:
    """What a window 1 / r as large as the image shows, enlarged to the image's size, and the boxes there.

    r is drawn evenly by logarithm. The window lies in the image, or the image in the window. Boxes are not clipped.
    """
    from torchvision.transforms.v2 import functional

    draws = torch.rand(3, generator=generator).tolist()
    ratio = scale[0] * (scale[1] / scale[0]) ** draws[0]
    height, width = image.shape[1:]
    window = max(1, round(height / ratio)), max(1, round(width / ratio))
    top, left = (
        round(draw * (side - length)) for draw, side, length in zip(draws[1:], (height, width), window, strict=True)
    )
    around = [max(-left, 0), max(-top, 0), max(left + window[1] - width, 0), max(top + window[0] - height, 0)]
    if any(around):
        image = functional.pad(image, around, fill=image.float().mean((1, 2)).round().tolist())
    image = functional.resized_crop(
        image, top + around[1], left + around[0], *window, size=[height, width], antialias=True
    )
    enlarged = boxes.new_tensor([width / window[1], height / window[0]]).repeat(2)
    return image, (boxes - boxes.new_tensor([left, top, left, top])) * enlarged


def _recolor(image: UInt8[Tensor, "3 h w"], strength: float, seed: int) -> UInt8[Tensor, "3 h w"]:
    """torchvision's own color jitter, which draws from torch's CPU generator; its state is put back afterwards."""
    from torchvision.transforms import v2

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        return v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)(image)


def loader(
    data: DetectionSet,
    *,
    batch: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    augmentation: Augmentation | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
) -> Iterator[list[Sample]]:
    """The batches of one epoch, each a list of (image, targets) as `prepare` gives them.

    batch: images in a step over all processes. Process `rank` of `world` gets every world-th image of each batch,
        from its own place on. The last batch may be smaller; where it has fewer images than there are processes, the
        first images of the epoch's order fill it up, so that no process gets none.
    seed, epoch: the order depends on both, and the changes of an image on both and its index in `data`: not on the
        batch, the workers, the processes, or what was read before.
    workers: processes that read and prepare images; 0 for none.
    start: how many batches to pass over, unread.

    Raises: DistilError if the set is empty, the batch is smaller than the number of processes, or a file is bad.
    """
    if not len(data):
        raise DistilError(f"{data.name} has no images: nothing to train on.")
    if batch < world:
        raise DistilError(
            f"{{batch}} is {batch} and cannot be dealt to {world} processes: give {world} or more.", field="batch"
        )
    batches = [
        whole[rank::world] for whole in _global_batches(len(data), batch, seed, epoch, shuffle=shuffle, world=world)
    ][start:]
    prepared = _Prepared(data, augmentation, seed, epoch)
    return _batches(prepared, batches, workers, seed_at(seed, "sources", "loader", "workers", epoch))


def _global_batches(count: int, batch: int, seed: int, epoch: int, *, shuffle: bool, world: int) -> list[list[int]]:
    order = list(range(count))
    if shuffle:
        order = torch.randperm(count, generator=stream(seed, "sources", "loader", epoch)).tolist()
    batches = [order[first : first + batch] for first in range(0, count, batch)]
    missing = world - len(batches[-1])
    batches[-1] += [order[place % count] for place in range(missing)]
    return batches


@dataclass(frozen=True, eq=False)
class _Prepared(torch.utils.data.Dataset):
    data: DetectionSet
    augmentation: Augmentation | None
    seed: int
    epoch: int

    def __getitem__(self, index: int) -> Sample | DistilError:
        """A DistilError is returned, not raised: a worker's exceptions arrive with a traceback in their message."""
        try:
            drawn = seed_at(self.seed, "sources", "augment", self.epoch, index)
            return prepare(*self.data[index], self.augmentation, drawn, index=index)
        except DistilError as error:
            return error


def _batches(
    prepared: _Prepared, batches: Sequence[list[int]], workers: int, worker_seed: int
) -> Iterator[list[Sample]]:
    if workers:
        read = torch.utils.data.DataLoader(
            prepared,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=list,
            generator=torch.Generator().manual_seed(worker_seed),  # without one the global generator is drawn from
        )
    else:
        read = ([prepared[index] for index in batch] for batch in batches)
    for samples in read:
        ready: list[Sample] = []
        for sample in samples:
            if isinstance(sample, DistilError):
                raise sample
            ready.append(sample)
        yield ready
