"""Some classes of a source."""

import pytest
import torch

from distil.data.images.digits import digits_source
from distil.data.images.image_set import ImageSet
from distil.errors import DistilError


def make(classes=("a", "b", "c")):
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 1])
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(-1, -1, 2, 2).contiguous()
    return ImageSet(images, labels, classes, (0.1,), (0.2,), "letters")


def test_images_keep_their_order_and_labels_follow_the_order_given():
    few = make().only(["c", "a"])
    assert few.classes == ("c", "a")
    assert few.images[:, 0, 0, 0].tolist() == [0, 1, 3, 4]
    assert few.labels.tolist() == [0, 1, 1, 0]
    assert (few.mean, few.std) == ((0.1,), (0.2,))
    assert few.name == "letters (2 of 3 classes)"
    whole = make()
    assert whole.only(whole.classes) is whole
    turned = whole.only(["b", "c", "a"])
    assert turned.name == "letters"
    assert turned.only(whole.classes).fingerprint() == whole.fingerprint()
    assert turned.only(["c", "a"]).fingerprint() == few.fingerprint() != whole.only(["a", "c"]).fingerprint()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "x"], r"unknown class 'x'\. The classes of letters are a, b, c\."),
        (["a", "a"], "classes names 'a' twice"),
        ([], r"classes is \[\]: give a list of class names"),
        ("abc", "classes is 'abc': give a list"),
        (["a"], r"only one class \('a'\): distil needs at least two"),
    ],
)
def test_classes_that_it_cannot_give_are_refused(classes, message):
    with pytest.raises(DistilError, match=message):
        make().only(classes)


def test_names_are_compared_in_one_form():
    assert make(("a", "caf\u00e9", "c")).only(["cafe\u0301", "c"]).classes == ("caf\u00e9", "c")


def test_a_source_gives_both_splits_and_says_so():
    source = digits_source()
    few = source.only(["7", "2", "4"])
    assert few.key == "digits"
    assert few.name == "digits (3 of 10 classes)"
    assert few.test.classes == few.train.classes == ("7", "2", "4")
    assert "3 of 10 classes are used" in few.inventory.notes
    train, test = few.inventory.splits
    assert (train.images, test.images) == (len(few.train.labels), len(few.test.labels))
    assert train.per_class == few.train.counts
    assert source.only(source.train.classes) is source
    held = [one.split(0.1, 3)[1] for one in (source.train, few.train)]
    assert torch.equal(held[0].only(["7", "2", "4"]).images, held[1].images)


def test_a_set_of_some_classes_is_told_how_to_be_judged():
    with pytest.raises(DistilError, match=r"letters has 3 classes and x 2 of them: take .* with classes=c,a\.$"):
        make().check_matches(("c", "a"), 1, (2, 2), "x")
    with pytest.raises(DistilError, match="2 against 3"):
        make().only(["a", "b"]).check_matches(("a", "b", "c"), 1, (2, 2), "x")
