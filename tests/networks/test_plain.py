"""The lines that `distil detector export` prints build the same detector where there is no distil."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distil.networks.detectors import Architecture, build_detector
from distil.networks.plain import plain_lines

from .test_detectors import TINY

WITHOUT_DISTIL = """
import sys
sys.modules["distil"] = None
try:
    import distil
except ImportError:
    pass
else:
    raise SystemExit("distil can be imported")
"""
COMPARED = """
import torch
from safetensors.torch import save_file
with torch.no_grad():
    found = detector([torch.load("image.pt")])[0]
save_file({name: tensor.contiguous() for name, tensor in found.items()}, "found.safetensors")
"""

MADE = {
    "faster-rcnn, timm, group": TINY,
    "faster-rcnn 2, timm, group": replace(TINY, version=2, head_convs=2, proposals=20, sampled=8),
    "faster-rcnn 2, torchvision, batch": replace(TINY, version=2, backbone="mobilenet_v3_small", norm="batch"),
    "faster-rcnn, torchvision, frozen": replace(TINY, backbone="resnet18", norm="frozen", finest=8, min_size=(48, 64)),
    "retinanet, timm with activations in its norms": replace(
        TINY, detector="retinanet", backbone="timm:efficientnet_b0", norm="frozen", head_convs=2
    ),
    "retinanet 2, torchvision, group": replace(TINY, detector="retinanet", version=2, backbone="resnet18"),
    "fcos, densenet": replace(TINY, detector="fcos", backbone="densenet121", finest=16, anchor=32.0),
    "fcos, features": replace(
        TINY, detector="fcos", backbone="mobilenet_v3_small", norm="frozen", mean=(0.1, 0.2, 0.3)
    ),
}


def run(lines: list[str], folder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    script = WITHOUT_DISTIL + "\n".join(lines) + COMPARED
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums of several threads are rounded otherwise
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "found.safetensors")


@pytest.mark.parametrize("made", MADE)
def test_the_lines_build_the_same_detector_without_distil(made, tmp_path):
    architecture: Architecture = MADE[made]
    detector = build_detector(architecture, seed=3)
    for layer in detector.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(0.01)
    for name, parameter in detector.named_parameters():
        if name.endswith("cls_logits.bias"):
            nn.init.zeros_(parameter)  # so that something is found
    save_file(detector.state_dict(), tmp_path / "my weights.safetensors")
    image = torch.rand(3, 60, 70, generator=torch.Generator().manual_seed(0))
    torch.save(image, tmp_path / "image.pt")
    found = run(plain_lines(detector, architecture, "my weights.safetensors"), tmp_path)
    with torch.no_grad():
        expected = detector.eval()([image])[0]
    assert len(expected["boxes"]) > 0
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_only_what_is_used_is_imported():
    lines = plain_lines(build_detector(TINY, seed=0), TINY, "x.safetensors")
    assert "import timm" in lines
    assert "from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead" in lines
    assert not any("distil" in line for line in lines)
    assert lines[-1] == "classes = ['cat', 'dog']  # of the labels 1, 2, ..."
