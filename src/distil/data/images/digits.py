"""scikit-learn's handwritten digits: real handwriting that needs no download."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from distil.data.arrays import resize_images, stratified_split
from distil.data.catalog import CATALOG
from distil.data.images.image_set import Found, Source, source_from_tensors

TEST_IMAGES_PER_CLASS = 50


def digits_source(*, size: int | None = None) -> Source:
    """1,797 handwritten digits of 8 x 8 pixels and 17 grey values, enlarged bilinearly to 16 x 16 (or size x size).

    The split is fixed, whatever the run's seed: 50 images of each digit are the test split (500), the others (1,297)
    the training split. 16 x 16 is exact arithmetic: every machine gets the same bytes.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI (1998), the test part, as packed in
    scikit-learn. Differs: the split is ours.
    """
    named = CATALOG["digits"]
    pixels, numbers = load_digits(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = resize_images(torch.from_numpy(grey), size or named.shape[1])
    labels = torch.from_numpy(numbers.astype(np.int64))
    classes = named.classes
    kept, held = stratified_split(labels, classes, [TEST_IMAGES_PER_CLASS] * 10, 0, "sources", "digits", "test")
    found = Found(
        "scikit-learn",
        (f"all but {TEST_IMAGES_PER_CLASS} of each digit", f"{TEST_IMAGES_PER_CLASS} of each digit"),
        (8, 8),
    )
    train, test = (images[kept], labels[kept]), (images[held], labels[held])
    return source_from_tensors(train, test, classes, name=named.key, key=named.key, found=found)
