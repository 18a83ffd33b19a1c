"""The examples of detectors and of their losses run as they are."""

import importlib.util
from pathlib import Path

import pytest

from distil.files import load_tensors

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("own_detector_loss", "head.classification_head.cls_logits.weight"),
        ("own_detector_adapter", "head.weight"),
    ],
)
def test_an_example_trains_a_student(name, weights, tmp_path):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert weights in load_tensors(example.main(tmp_path / "run"))[0]
