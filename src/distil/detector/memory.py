"""How much memory a training step needs: measured on small images, reckoned for the batch."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distil.data.detection.detection_set import DetectionSet
from distil.data.detection.transforms import prepare
from distil.detector.adapters import freeze
from distil.detector.settings import DetectorSettings, DetectorTraining
from distil.detector.training.setup import make_losses, make_student, own_random_numbers
from distil.detector.training.step import Step, Work
from distil.networks.detectors import Architecture

TRIED = (192, 320)
"""Sides of the square images that are tried; larger ones are reckoned from these, since memory grows with the area."""
SPARE = 1.2
"""Times what tensors take: for what the arithmetic libraries and the allocator need beside them."""
DIVISOR = 32
"""Detectors pad images to multiples of so many pixels."""
COPIES = 3
"""Float images of a batch that are there at once: as read, as resized, and padded together."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training step needs."""

    fixed: int
    """Weights of student, losses and teacher; gradients, the optimizer's state, and what a step holds once."""
    per_image: int
    """What is kept of each image of a batch for the backward pass, and the image itself."""
    view: tuple[int, int]
    """Height and width of the padded images, in pixels."""

    def of(self, images: int) -> int:
        """Bytes of a step with so many images."""
        return self.fixed + images * self.per_image

    def largest_batch(self, free: int) -> int:
        """Images that fit; 0 if none does."""
        return max(0, (free - self.fixed) // self.per_image)


def footprint(
    student: Architecture,
    data: DetectionSet,
    settings: DetectorSettings,
    *,
    teacher: Any = None,
    teacher_classes: Sequence[str] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> Footprint:
    """The memory of a step of `train_detector`, by forward and backward passes of one and two images of at most 320 x
    320 pixels on the CPU, which take seconds. Arguments as of `train_detector`; the teacher is left as it was.

    Memory is taken to grow with the pixels of the padded image and with the images of a batch. The image is that of
    `data` with about as many objects as a tenth of the images exceed.

    Raises: DistilError as `train_detector` when student, teacher and data do not fit.
    """
    _, adapter = make_student(student, settings.training.seed, data, weights)
    module = Step(adapter)
    place = None
    if teacher is not None and settings.taught:
        freeze(teacher)
        place = next(teacher.model.parameters()).device
        teacher.model.to("cpu")
        module = Step(adapter, *make_losses(adapter, teacher, teacher_classes, data, settings))
    else:
        teacher = None
    try:
        height, width = _largest_view(data, student)
        per_step, per_image = _reckoned(module, teacher, data, settings.training, height * width)
    finally:
        if place is not None:
            teacher.model.to(place)
    per_image += _bytes_of_image(data, height * width)
    fixed = per_step + _fixed(module, settings.training)
    fixed += 0 if teacher is None else _bytes(teacher.model.state_dict().values())
    return Footprint(int(SPARE * fixed), int(SPARE * per_image), (height, width))


def _reckoned(
    module: Step, teacher: Any, data: DetectionSet, training: DetectorTraining, pixels: int
) -> tuple[float, float]:
    """Bytes that passes hold for the whole step, and for each image of so many pixels.

    One and two images tell what an image adds, and a larger image what its pixels add.
    """
    transform = module.adapter.model.transform
    small, large = TRIED
    if pixels > small**2:
        transform.min_size, transform.max_size = (small,), small
    area, one = _passes(module, teacher, data, training, 1)
    _, two = _passes(module, teacher, data, training, 2)
    each = max(0, two - one)
    per_step = max(0, one - each)
    if pixels <= small**2:
        return per_step, each * max(1.0, pixels / area)
    transform.min_size, transform.max_size = (large,), large
    larger, more = _passes(module, teacher, data, training, 1)
    slope = max(0.0, (more - one) / (larger - area))
    return per_step, each + slope * (pixels - area)


def _passes(module: Step, teacher: Any, data: DetectionSet, training: DetectorTraining, images: int) -> tuple[int, int]:
    """Pixels of the view of the image that stands for all, and the most bytes that the passes of so many hold."""
    busy = sorted(range(len(data)), key=lambda index: len(data.annotations(index)))[(9 * (len(data) - 1)) // 10]
    image, target = prepare(*data[busy], None, 0)
    targets = [{key: target[key] for key in ("boxes", "labels")}] * images
    module.train()
    with own_random_numbers(torch.device("cpu")), _gradients_dropped(module), HeldBytes() as held:
        view = module.adapter.view([image] * images, targets, seeds=range(images))
        mixed = training.precision != "32"
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            losses, _ = module(Work(view, teacher))
        torch.stack(list(losses.values())).sum().backward()
    return view.images.shape[2] * view.images.shape[3], held.most


class HeldBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were made in it and are still held. most: at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor) and id(storage := x.untyped_storage()) not in given:
                self._hold(storage)
        return made

    def _hold(self, storage: Any) -> None:
        if storage in self.known:
            return
        size = self.known[storage] = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


@contextmanager
def _gradients_dropped(module: nn.Module) -> Iterator[None]:
    """Within the block no parameter keeps its gradient: gradients are counted with the weights."""

    def drop(parameter: Tensor) -> None:
        parameter.grad = None

    hooks = [p.register_post_accumulate_grad_hook(drop) for p in module.parameters() if p.requires_grad]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _largest_view(data: DetectionSet, student: Architecture) -> tuple[int, int]:
    """Height and width that all but a twentieth of the images do not exceed when resized and padded."""
    smaller = student.min_size if isinstance(student.min_size, int) else max(student.min_size)
    heights, widths = [], []
    for index in range(len(data)):
        height, width = data.size(index)
        scale = min(smaller / min(height, width), student.max_size / max(height, width))
        heights.append(height * scale)
        widths.append(width * scale)
    return _padded(heights), _padded(widths)


def _padded(sides: Sequence[float]) -> int:
    side = sorted(sides)[(19 * (len(sides) - 1)) // 20]
    return max(DIVISOR, -(-int(side) // DIVISOR) * DIVISOR)


def _bytes_of_image(data: DetectionSet, pixels: int) -> int:
    """Bytes of one image as it is read, in float32, and in the view."""
    areas = [height * width for height, width in (data.size(index) for index in range(len(data)))]
    read = sorted(areas)[(19 * (len(areas) - 1)) // 20]
    return 3 * (read + 4 * read + 4 * (COPIES - 1) * pixels)


def _fixed(module: Step, training: DetectorTraining) -> int:
    """Bytes of weights, gradients, the optimizer's state, and the copy that a checkpoint is written from."""
    weights, trained = _bytes(module.state_dict().values()), _bytes(p for p in module.parameters() if p.requires_grad)
    states = 2 if training.optimizer == "adamw" else 1
    return 2 * (weights + states * trained) + trained


def _bytes(tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)
