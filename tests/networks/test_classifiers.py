"""Classifiers: what a file says is what is asked, and what does not fit is refused."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from distil.errors import DistilError
from distil.files import save_tensors
from distil.networks import build_network
from distil.networks.classifier_files import open_classifier, open_ensemble, read_classifier, save_classifier
from distil.networks.classifiers import Classifier, Ensemble

CLASSES = ("cat", "dog", "owl")
TINY = "test_resnet"
"""timm's smallest network."""


def classifier(seed=0, size=(8, 8), channels=1, classes=CLASSES, **changes):
    network = build_network("convnet2", channels=channels, size=size, classes=3, width=4, seed=seed)
    fields = {"architecture": "convnet2", "width": 4, "mean": (0.4,) * channels, "std": (0.3,) * channels}
    return Classifier(network, classes=classes, size=size, **{**fields, **changes})


def test_it_normalizes_resizes_and_stays_in_eval_mode():
    one = classifier()
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(one.logits(images), one.network((images - 0.4) / 0.3))
    assert torch.equal(one(images), one.logits(images))
    torch.testing.assert_close(one.network.classifier(one.embed(images)), one.logits(images))  # pyright: ignore
    large = torch.rand(2, 1, 16, 12)
    small = interpolate(large, (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(one.logits(large), one.logits(small))
    assert not one.train().network.training
    assert not any(parameter.requires_grad for parameter in one.parameters())
    color = classifier(channels=3)
    torch.testing.assert_close(color.logits(images), color.logits(images.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("classes", [CLASSES, 3])
def test_a_file_gives_the_same_classifier(tmp_path, classes):
    one = classifier(classes=classes)
    save_classifier(path := tmp_path / "one.safetensors", one)
    read = open_classifier(str(path))
    assert isinstance(read, Classifier)
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(read.logits(images), one.logits(images))
    assert (read.classes, read.class_count, read.size, read.width) == (one.classes, 3, (8, 8), 4)
    assert read.fingerprint() == one.fingerprint() != classifier(seed=1).fingerprint()
    assert read.fingerprint() != classifier(classes=classes, mean=(0.5,)).fingerprint()
    assert read.bytes == sum(4 * parameter.numel() for parameter in one.parameters()) == open_classifier(path).bytes


def test_an_ensemble_has_the_mean_of_the_logits(tmp_path):
    one, other = classifier(0), classifier(1, size=(12, 12), mean=(0.1,))
    for name, member in (("a", one), ("b", other)):
        save_classifier(tmp_path / f"{name}.safetensors", member)
    both = open_ensemble([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    images = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(both.logits(images), (one.logits(images) + other.logits(images)) / 2)
    assert both.embed(images).shape[1] == one.embed(images).shape[1] + other.embed(images).shape[1]
    assert both.bytes == one.bytes + other.bytes
    assert (both.classes, both.channels) == (CLASSES, 1)
    assert isinstance(open_ensemble([tmp_path / "a.safetensors"]), Classifier)
    with pytest.raises(DistilError, match="different classes: class 0 is 'dog' against 'cat'"):
        Ensemble([one, classifier(classes=("dog", "cat", "owl"))])


def test_timm_weights_of_a_file_with_what_lies_beside_them(tmp_path):
    network = timm.create_model(TINY, num_classes=3, in_chans=1).eval()
    path = tmp_path / "model.safetensors"
    save_file(network.state_dict(), path)
    one = open_classifier(f"{TINY}@{path}")
    assert isinstance(one, Classifier)
    side = one.size[0]
    images = torch.rand(2, 1, side, side)
    mean, std = (sum(timm.get_pretrained_cfg(TINY).to_dict()[key]) / 3 for key in ("mean", "std"))
    torch.testing.assert_close(one.logits(images), network((images - mean) / std))
    assert (one.classes, one.class_count, one.channels) == (None, 3, 1)
    assert one.embed(images).shape == (2, network.num_features)  # pyright: ignore
    told = {"mean": [0.2], "std": [0.5], "input_size": [1, 32, 32], "label_names": list(CLASSES)}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": TINY, "pretrained_cfg": told}))
    one = open_classifier(f"timm:{TINY}@{path}")
    assert isinstance(one, Classifier)
    assert (one.classes, one.mean, one.size) == (CLASSES, (0.2,), (32, 32))
    save_classifier(kept := tmp_path / "kept.safetensors", one)
    assert torch.equal(read_classifier(kept).logits(images), one.logits(images))


def test_what_does_not_match_the_data_is_told_by_name():
    one = classifier()
    one.check_matches(CLASSES, 1, "photos")
    classifier(classes=3).check_matches(("x", "y", "z"), 1, "photos")
    classifier(channels=3).check_matches(CLASSES, 1, "photos")
    for classes, channels, message in (
        (("cat", "owl", "dog"), 1, r"and photos have different classes: class 1 is 'dog' against 'owl'\. Give"),
        (CLASSES[:2], 1, "tells 3 classes apart, and photos has 2"),
        (CLASSES, 3, "sees images of 1 channels, and photos has 3"),
    ):
        with pytest.raises(DistilError, match=message):
            one.check_matches(classes, channels, "photos")


def test_words_that_name_no_classifier(tmp_path):
    save_tensors(other := tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"kind": "prototypes"})
    save_tensors(newer := tmp_path / "newer.safetensors", {}, {"kind": "classifier", "format_version": 99})
    (pickled := tmp_path / "weights.pth").write_bytes(b"x")
    for word, message in (
        (TINY, rf"pretrained weights of {TINY} may have to be fetched: download=True allows it"),
        ("convnet3", "convnet3 alone has no weights: give the file of a trained one"),
        ("test_resnett", "unknown classifier 'test_resnett'. Did you mean test_resnet"),
        (str(other), "holds 'prototypes', not a classifier"),
        (str(newer), "format 99, and this distil reads up to 1: upgrade"),
        (f"{TINY}@{pickled}", "pickled weights can run code"),
        (f"{TINY}@{other}", f"has no weight .*, which timm's {TINY} has"),
        (str(tmp_path / "none.safetensors"), "no such file"),
        (str(tmp_path), "holds no experts: give the file of one classifier"),
    ):
        with pytest.raises(DistilError, match=message):
            open_classifier(word)
