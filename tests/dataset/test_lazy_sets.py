"""Sets that stay in their files give what sets in memory give."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from distil import distil_dataset, evaluate_distilled, preset, protocol_for
from distil.data.images.lazy_images import LazyImages
from distil.data.images.opener import open_source
from distil.dataset.config import Matching, Observer, Selection
from distil.dataset.distil import check_fit
from distil.errors import DistilError
from distil.evaluation.evaluator import evaluate_real
from distil.fields import with_values

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "photos"
    for index in range(24):
        folder = root / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture = RANDOM.integers(0, 128, (8, 8, 3)) + 100 * (index % 2)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{index:02}.png")
    held, lazy = open_source(root), open_source(root, memory=0)
    assert isinstance(lazy.train.images, LazyImages)
    return held, lazy


@pytest.mark.parametrize("method", ["random", "herding", "k-means", "k-center", "rded", "dm"])
def test_methods_make_the_same_set(sources, method):
    settings = preset(method, "custom", 2)
    if isinstance(settings, Matching):
        settings = with_values(settings, outer=2, width=4, network="convnet1", batch=4)
    elif isinstance(settings, Selection) and settings.observer is not None:
        settings = replace(settings, observer=Observer("convnet1", 4, 1))
    one, other = (distil_dataset(source.train, settings) for source in sources)
    assert torch.equal(one.params, other.params)
    assert (one.mean, one.std, one.classes) == (other.mean, other.std, other.classes)


def test_scores_are_the_same(sources):
    held = sources[0]
    protocol = replace(protocol_for("quick", "custom"), epochs=2, max_updates=4, whole_updates=4)
    options = {"networks": ("convnet1",), "width": 4, "runs": 2}
    made = distil_dataset(held.train, preset("random", "custom", 2))
    scores = [evaluate_distilled(made, source.test, protocol, **options).accuracies for source in sources]
    assert scores[0] == scores[1]
    for count in (2, None):
        one, other = (
            evaluate_real(source.train, source.test, protocol, images_per_class=count, **options) for source in sources
        )
        assert (one.accuracies, one.bytes) == (other.accuracies, other.bytes)


def test_nothing_is_matched_in_a_network_with_batch_norm(sources):
    settings = with_values(preset("dm", "custom", 1), network="resnet18_bn")
    with pytest.raises(DistilError, match=r"resnet18_bn has batch norm.* Use resnet18"):
        check_fit(sources[0].train, settings)
    observer = Observer("resnet18_bn", 2, 1)
    chosen = Selection("herding", observer=observer, validation=0.0)
    assert len(distil_dataset(sources[0].train, chosen).params) == 2
