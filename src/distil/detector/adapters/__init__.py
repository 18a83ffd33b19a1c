"""Adapters: how distillation sees a detector, whichever it is."""

from typing import Any

from torch import nn

from distil.detector.adapters.faster_rcnn import FasterRCNNAdapter
from distil.detector.adapters.fcos import FCOSAdapter
from distil.detector.adapters.protocol import MEMBERS, DetectorAdapter, common_levels, freeze
from distil.detector.adapters.retinanet import RetinaNetAdapter
from distil.errors import DistilError

__all__ = [
    "DetectorAdapter",
    "FCOSAdapter",
    "FasterRCNNAdapter",
    "RetinaNetAdapter",
    "adapt",
    "common_levels",
    "freeze",
]


def adapt(model: Any) -> Any:
    """The adapter of a torchvision FasterRCNN, RetinaNet or FCOS. What is an adapter already is given back.

    The mode, the weights and the random generators stay as they were.
    Raises: DistilError on any other model, telling what an adapter of one's own needs.
    """
    if not isinstance(model, nn.Module) and all(hasattr(model, member) for member in MEMBERS):
        return model
    from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet

    for kind, adapter in ((FasterRCNN, FasterRCNNAdapter), (RetinaNet, RetinaNetAdapter), (FCOS, FCOSAdapter)):
        if isinstance(model, kind):
            return adapter(model)
    raise DistilError(
        f"no adapter for a {type(model).__name__}: adapt takes torchvision's FasterRCNN, RetinaNet and FCOS. Give an "
        f"object of your own with the members {', '.join(MEMBERS)}; "
        "help(distil.detector.adapters.DetectorAdapter) says what each must do."
    )
