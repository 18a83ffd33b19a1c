"""RDED."""

from distil.dataset.config import Observer, Selection, Tiles
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import GENERAL, OWN

RELEASE = "the authors' released code"


def settings(key: str, ipc: int) -> Selection:
    observer = Observer(width=32 if key == "digits" else 128)
    return Selection(method="rded", ipc=ipc, observer=observer, tiles=Tiles(images=max(300, 4 * ipc)))


METHOD = Method(
    name="rded",
    title="realistic and diverse crops",
    kind="selection",
    paper="Sun et al.: On the diversity and realism of distilled dataset: an efficient dataset distillation paradigm. "
    "CVPR 2024 (RDED)",
    description="Tiles items from the crops of real images that a network recognizes most surely. Published: 42% on "
    "ImageNet-1K at 10 per class, ResNet-18, a teacher labeling every batch; of the best test epoch.",
    cost="one pass of a trained network over some crops of each class, given --model; else one network trained on the "
    "whole set",
    settings=settings,
    sources={
        **GENERAL,
        "network": f"{OWN}; the paper has networks trained beforehand (--model): ConvNet-d up to 128 pixels, ResNet-18",
        "observer": f"{OWN} where no --model is given",
        "network_epochs": OWN,
        "images": f"{RELEASE} (mipc 300 in its scripts); more where that is too few",
        "crops": f"{RELEASE} (cr 5 in its scripts)",
        "smallest": f"{RELEASE}: torchvision's RandomResizedCrop",
        "factor": f"{RELEASE}: 2 for ImageNet and its subsets, 1 for smaller images",
    },
)
