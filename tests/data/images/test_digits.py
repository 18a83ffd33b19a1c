import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distil.data.images.opener import open_source

DIGITS_TEST_COUNTS = (50,) * 10


@pytest.fixture(scope="module")
def digits():
    return open_source("digits")


def test_the_digits_are_split_and_enlarged(digits):
    assert (len(digits.train), len(digits.test)) == (1297, 500)
    assert digits.test.counts == DIGITS_TEST_COUNTS
    assert (digits.train.channels, digits.train.size) == (1, (16, 16))
    assert digits.train.classes == tuple("0123456789")
    assert (digits.key, digits.name, digits.note) == ("digits", "digits", "")
    assert int(digits.train.images.max()) == 255
    pixels = digits.train.images.double() / 255
    assert digits.train.mean == pytest.approx((pixels.mean().item(),))
    assert digits.train.std == pytest.approx((pixels.std(correction=0).item(),))


def test_every_digit_of_scikit_learn_is_there_once():
    source = open_source("digits", size=8)
    pixels, numbers = load_digits(return_X_y=True)
    expected = sorted(zip(numbers.tolist(), np.rint(pixels * 255 / 16).astype(int).tolist(), strict=True))
    assert source.test is not None
    images = torch.cat([source.train.images, source.test.images]).flatten(1).tolist()
    labels = torch.cat([source.train.labels, source.test.labels]).tolist()
    assert sorted(zip(labels, images, strict=True)) == expected


def test_the_split_and_the_bytes_are_the_same_on_every_machine_and_for_every_seed(digits):
    again = open_source("digits", seed=5)
    assert again.train.fingerprint() == digits.train.fingerprint()
    assert digits.train.fingerprint().startswith("3237b7156067a17a")


def test_another_size():
    assert open_source("digits", size=20).train.size == (20, 20)


def test_the_inventory_of_the_digits(digits):
    assert str(digits.inventory) == (
        "Read digits (scikit-learn): 10 classes\n"
        "  train: 1,297 images of 8 x 8 pixels, from all but 50 of each digit\n"
        "  test: 500 images of 8 x 8 pixels, from 50 of each digit\n"
        "  train images by class: 0 128, 1 132, 2 127, 3 133, 4 131, 5 132, 6 131, 7 129, 8 124, 9 130\n"
        "  note: each image is resized to 16 x 16 pixels"
    )
