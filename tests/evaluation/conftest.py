from dataclasses import replace

import pytest
import torch

from distil.data.images.image_set import ImageSet
from distil.distilled_set.record import DistilledSet
from distil.evaluation.protocols import PROTOCOLS
from distil.parameterizations.crops import Crops

PLAIN = replace(PROTOCOLS["quick"], name="plain", epochs=30, strategy="none", cutmix=0.0, lr=0.05, weight_decay=0.0)
MEAN, STD = (0.4,), (0.3,)


def stripes(count=20, size=8, seed=0):
    """Three classes that anyone can tell apart: bright above, bright below, bright in the middle; a little noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.rand(count, 1, size, size, generator=generator) * 0.2
    third = size // 3
    for image, label in zip(images, labels, strict=True):
        start = (0, size - third, third)[int(label)]
        image[:, start : start + third] += 0.7
    return (images * 255).to(torch.uint8), labels


def image_set(count=20, size=8, seed=0, classes=("above", "below", "middle"), name="stripes test"):
    images, labels = stripes(count, size, seed)
    return ImageSet(images, labels, classes, MEAN, STD, name=name)


def distilled_set(size=8, **changes):
    images, labels = stripes(6, size, seed=5)
    fields = {
        "params": images,
        "labels": labels,
        "parameterization": Crops.grid(1, (size, size)),
        "classes": ("above", "below", "middle"),
        "mean": MEAN,
        "std": STD,
        "method": "random",
        "settings": {},
        "seed": 0,
        "source": "stripes",
        "source_fingerprint": "0" * 64,
    }
    return DistilledSet(**{**fields, **changes})


def weights(net):
    return torch.cat([param.detach().flatten() for param in net.parameters()])


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Networks this small lose time to a second thread, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
