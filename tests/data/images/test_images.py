import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil import Selection, distil_dataset, evaluate_distilled, preset, protocol_for
from distil.data.images.image_set import source_from_tensors
from distil.data.images.opener import ImageSet, Source
from distil.errors import DistilError
from distil.rng import stream


def random_images(count: int, channels: int = 1, height: int = 4, width: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, height, width), generator=stream(0, "images"), dtype=torch.uint8)


def make_set(counts=(5, 3, 4), channels: int = 1, **changes) -> ImageSet:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=stream(0, "order"))]
    fields = {
        "images": random_images(len(labels), channels),
        "labels": labels,
        "classes": tuple("abcdefghij"[: len(counts)]),
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "name": "toy",
    }
    return ImageSet(**(fields | changes))


def numbered_set(counts) -> ImageSet:
    """Every image is its own index in all pixels."""
    images = torch.arange(sum(counts), dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return make_set(counts, images=images)


def indices_of(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_what_a_set_says_of_itself():
    images = make_set((5, 3, 4), channels=3)
    assert (len(images), images.channels, images.size, images.counts) == (12, 3, (4, 5), (5, 3, 4))
    for label, members in enumerate(images.by_class):
        assert members.tolist() == [index for index, value in enumerate(images.labels.tolist()) if value == label]
    assert images.images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(12, 1, 4, 4)}, "images must be uint8 of shape .* not torch.float32"),
        ({"images": torch.zeros(12, 4, 4, dtype=torch.uint8)}, r"not torch.uint8 of shape \(12, 4, 4\)"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, r"one int64 label an image, 12 in all, not .* \(11,\)"),
        ({"labels": torch.zeros(12)}, "one int64 label an image, 12 in all, not torch.float32"),
        ({"mean": (0.5, 0.5)}, "1 channels need as many means and standard deviations, not 2 and 1"),
        ({"std": ()}, "not 1 and 0"),
        ({"labels": torch.full((12,), 3)}, "label 3 is out of range: with 3 classes, labels run from 0 to 2"),
        ({"labels": torch.full((12,), -1)}, "label -1 is out of range"),
        ({"labels": torch.zeros(12, dtype=torch.int64)}, "class 'b' has no images"),
        ({"classes": ("a", "b", "c", "d")}, "class 'd' has no images"),
        ({"classes": ("a",)}, r"only one class \('a'\): distil needs at least two"),
        ({"classes": ("a", "b", "a")}, "class name 'a' is given twice"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(DistilError, match=r"toy: .*" + message):
        make_set(**changes)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"classes": ["a", "b", "c"]}, {"classes": ("a", "b", "c")}),
        ({"classes": [0, 1, 2]}, {"classes": ("0", "1", "2")}),
        ({"classes": range(3)}, {"classes": ("0", "1", "2")}),
        ({"classes": np.array(["a", "b", "c"])}, {"classes": ("a", "b", "c")}),
        ({"classes": torch.tensor([7, 8, 9])}, {"classes": ("7", "8", "9")}),
        ({"classes": ("cafe\u0301", "b", "c")}, {"classes": ("caf\u00e9", "b", "c")}),
        ({"mean": [0.5]}, {"mean": (0.5,)}),
        ({"mean": 0.5, "std": 0.25}, {"mean": (0.5,), "std": (0.25,)}),
        ({"mean": np.array([0.5], np.float32)}, {"mean": (0.5,)}),
        ({"mean": torch.full((1, 1, 1), 0.5), "std": torch.tensor([0.25])}, {"mean": (0.5,), "std": (0.25,)}),
    ],
)
def test_what_holds_the_same_is_converted(changes, fields):
    images = make_set(**changes)
    for name, value in fields.items():
        assert getattr(images, name) == value
        assert {type(part) for part in getattr(images, name)} == {type(value[0])}


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.tolist,
        torch.Tensor.numpy,
        lambda labels: labels.to(torch.uint8),
        lambda labels: labels.to(torch.int32),
        lambda labels: labels.numpy().astype(np.uint16),
    ],
)
def test_labels_may_be_integers_of_any_kind(convert):
    plain = make_set()
    images = make_set(labels=convert(plain.labels), images=plain.images.numpy())
    assert images.labels.dtype == torch.int64
    assert images.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": "abc"}, "classes must be the names in the order of the labels, as a list or tuple, not str"),
        ({"classes": {"a", "b", "c"}}, "as a list or tuple, not set"),
        ({"classes": {"a": 0, "b": 1, "c": 2}}, "as a list or tuple, not dict"),
        ({"classes": ["a", None, "c"]}, "the class name None is neither text nor an integer"),
        ({"classes": ["a", 0.5, "c"]}, "the class name 0.5 is neither text nor an integer"),
        ({"classes": ["a", " ", "c"]}, "class name ' ' is empty: give every class a name"),
        ({"classes": ["a", "\udcff", "c"]}, r"class name '\\udcff' cannot be written as UTF-8"),
        ({"classes": ["caf\u00e9", "cafe\u0301", "c"]}, "class name 'caf\u00e9' is given twice"),
        ({"labels": ["a"] * 12}, "labels must be integers, the indices of the class names"),
        ({"labels": None}, "labels must be integers, the indices of the class names"),
        ({"labels": np.zeros((12, 1), int)}, r"expected one int64 label an image, .* shape \(12, 1\)"),
        ({"images": [[0]]}, "images must be a uint8 tensor or NumPy array, not list"),
        ({"images": np.zeros((12, 1, 4, 4))}, "images must be uint8 of shape .* not float64"),
        ({"images": torch.zeros(12, 1, 0, 4, dtype=torch.uint8)}, "they need at least one pixel"),
        ({"mean": ("x",)}, r"mean must be one number a channel, not \('x',\)"),
        ({"mean": (float("nan"),)}, r"mean is \(nan,\): each number must lie in \[0, 1\]"),
        ({"mean": (125.3,)}, "Divide by 255 what was taken of pixels from 0 to 255"),
        ({"mean": (1e308,)}, "each number must lie in"),
        ({"std": (0.0,)}, r"std is \(0.0,\): each number must lie in \[0.001, 1\]"),
        ({"std": (-0.2,)}, "each number must lie in"),
        ({"std": (float("inf"),)}, "each number must lie in"),
        ({"std": torch.tensor([58.0])}, "each number must lie in"),
    ],
)
def test_what_cannot_be_converted_is_refused_when_the_set_is_made(changes, message):
    with pytest.raises(DistilError, match=r"toy: .*" + message):
        make_set(**changes)


def test_a_set_of_converted_fields_is_distilled_and_judged():
    """Classes as a list and statistics as arrays once failed after the last step, or while judging."""
    labels = torch.arange(40) % 2
    images = random_images(40, 3, 16, 16)
    made = ImageSet(images, labels.to(torch.int32), [0, 1], np.full(3, 0.5, "f4"), torch.full((3,), 0.25), "toy")  # pyright: ignore
    settings_ = dataclasses.replace(preset("dm", "custom", ipc=1), outer=1, inner=1, width=4)
    quick = dataclasses.replace(protocol_for("quick", "custom"), max_updates=2, epochs=2)
    for chosen in (settings_, Selection(method="random", ipc=1)):
        distilled = distil_dataset(made, chosen)
        assert distilled.classes == ("0", "1")
        evaluate_distilled(distilled, made, quick, width=4, runs=1)


def test_classes_are_compared_in_one_unicode_form():
    make_set(classes=("caf\u00e9", "b", "c")).check_matches(["cafe\u0301", "b", "c"], 1, (4, 5), "the set x")


def test_a_batch_is_float_in_zero_to_one():
    images = make_set()
    batch = images.batch(torch.tensor([3, 0, 3]))
    assert batch.images.dtype == torch.float32
    torch.testing.assert_close(batch.images, images.images[[3, 0, 3]].float() / 255, rtol=0, atol=0)
    assert batch.labels.tolist() == images.labels[[3, 0, 3]].tolist()


@given(count=st.integers(0, 23), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_sample_class_draws_without_replacement_and_cycles(count, seed):
    images = numbered_set((5, 7))
    for label in (0, 1):
        drawn = indices_of(images.sample_class(label, count, stream(seed, label)))
        members = images.by_class[label].tolist()
        assert len(drawn) == count
        for start in range(0, count, len(members)):
            cycle = drawn[start : start + len(members)]
            assert len(set(cycle)) == len(cycle)
            assert set(cycle) <= set(members)


def test_sample_class_follows_its_generator_and_reaches_every_image():
    images = numbered_set((5, 7))
    first = indices_of(images.sample_class(1, 3, stream(0, "x")))
    assert first == indices_of(images.sample_class(1, 3, stream(0, "x")))
    draws = [indices_of(images.sample_class(1, 3, stream(0, step))) for step in range(40)]
    assert any(draw != first for draw in draws)
    assert {index for draw in draws for index in draw} == set(images.by_class[1].tolist())


def test_sample_is_uniform_over_the_set():
    images = numbered_set((9, 1))
    batch = images.sample(10_000, stream(0, "sample"))
    drawn = torch.tensor(indices_of(batch.images))
    assert torch.equal(batch.labels, images.labels[drawn])
    frequency = torch.bincount(drawn, minlength=10) / 10_000
    assert (frequency - 0.1).abs().max() < 0.015


def test_a_whole_set_is_never_turned_to_float(monkeypatch):
    converted = []
    original = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda self: converted.append(len(self)) or original(self))
    images = make_set((50, 50))
    images.sample_class(0, 4, stream(0, "x"))
    images.sample(6, stream(0, "x"))
    images.split(0.5, 0)
    images.fingerprint()
    assert converted == [4, 6]


@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_stratified_disjoint_and_covers(counts, fraction, seed):
    images = numbered_set(counts)
    kept, held = images.split(fraction, seed)
    kept_indices, held_indices = indices_of(kept.images / 255), indices_of(held.images / 255)
    assert sorted(kept_indices + held_indices) == list(range(sum(counts)))
    assert kept_indices == sorted(kept_indices)
    for count, kept_count, held_count in zip(counts, kept.counts, held.counts, strict=True):
        assert kept_count + held_count == count
        assert min(kept_count, held_count) >= 1
        assert abs(held_count - count * fraction) <= 1
    assert torch.equal(kept.labels, images.labels[kept_indices])
    assert (kept.mean, kept.classes) == (images.mean, images.classes)


def test_a_split_depends_on_the_seed_alone():
    images = numbered_set((20, 20))
    held = [indices_of(images.split(0.3, seed)[1].images / 255) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_a_split_follows_the_names_of_the_classes():
    images = numbered_set((8, 9))
    swapped = dataclasses.replace(images, labels=1 - images.labels, classes=("b", "a"))
    assert torch.equal(images.split(0.4, 7)[1].images, swapped.split(0.4, 7)[1].images)


def test_a_class_with_one_image_cannot_be_split():
    with pytest.raises(DistilError, match="toy: class 'b' has 1 image, and a split needs at least 2"):
        make_set((4, 1)).split(0.5, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20, float("nan")])
def test_a_fraction_must_lie_between_zero_and_one(fraction):
    with pytest.raises(DistilError, match=r"cannot hold out a fraction .* between 0 and 1"):
        make_set().split(fraction, 0)


def test_the_fingerprint_is_of_the_content():
    images = make_set()
    print_ = images.fingerprint()
    assert len(print_) == 64
    assert dataclasses.replace(images, name="other", mean=(0.1,)).fingerprint() == print_
    assert make_set().fingerprint() == print_
    pixel, label = images.images.clone(), images.labels.clone()
    pixel[7, 0, 2, 1] += 1
    label[label == 0] = torch.tensor([0, 0, 0, 0, 1])
    others = [
        dataclasses.replace(images, images=pixel),
        dataclasses.replace(images, labels=label),
        dataclasses.replace(images, classes=("a", "b", "z")),
        dataclasses.replace(images, images=images.images.reshape(12, 1, 5, 4)),
    ]
    assert len({print_, *(other.fingerprint() for other in others)}) == 5


def test_to_the_same_device_is_the_same_set():
    images = make_set()
    assert images.to("cpu") is images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_round_trip_over_a_device_changes_nothing():
    images = make_set()
    there = images.to("cuda")
    assert there.fingerprint() == images.fingerprint() == there.to("cpu").fingerprint()
    drawn = [one.sample_class(1, 2, stream(0, "x")).cpu() for one in (images, there)]
    assert torch.equal(*drawn)
    assert torch.equal(images.split(0.3, 0)[1].images, there.split(0.3, 0)[1].images.cpu())


def test_matching_sets_pass():
    make_set(channels=3).check_matches(["a", "b", "c"], 3, (4, 5), "the distilled set x.safetensors")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((("a", "b", "c"), 3, (4, 5)), r"toy has 1 channel \(grey\) but the set x has 3 channels \(color\)"),
        ((("a", "b", "c"), 1, (8, 8)), r"toy has images of 4 x 5 pixels .* but the set x has 8 x 8"),
        ((("a", "y"), 1, (4, 5)), "toy and the set x have different classes: 3 against 2"),
        ((("a", "x", "c"), 1, (4, 5)), "toy and the set x have different classes: class 1 is 'b' against 'x'"),
    ],
)
def test_a_mismatch_names_both_sides(asked, message):
    with pytest.raises(DistilError, match=message + ".*Give the source that it was made from"):
        make_set().check_matches(*asked, what="the set x")


def test_a_source_takes_its_statistics_from_the_training_images():
    images = make_set((4, 4))
    other = make_set((2, 2))
    source = source_from_tensors((images.images, images.labels), (other.images, other.labels), "ab", name="toy")
    assert isinstance(source, Source)
    pixels = images.images.double() / 255
    assert source.train.mean == pytest.approx((pixels.mean().item(),), abs=1e-12)
    assert source.train.std == pytest.approx((pixels.std(correction=0).item(),), abs=1e-12)
    assert source.test is not None
    assert (source.test.mean, source.test.std) == (source.train.mean, source.train.std)
    assert (source.train.name, source.test.name, source.key, source.note) == ("toy train", "toy test", "custom", "")


def test_a_source_without_test_images_holds_some_out_and_says_so():
    images = make_set((10, 20))
    source = source_from_tensors((images.images, images.labels), None, "ab", name="toy", seed=3, note="as given")
    assert source.test is not None
    assert (source.train.counts, source.test.counts) == ((8, 16), (2, 4))
    assert source.note == "as given; no test split given: 20% of each class (6 images) held out with seed 3"
    pixels = source.train.images.double() / 255
    assert source.train.mean == pytest.approx((pixels.mean().item(),), abs=1e-12)


def test_a_source_with_unequal_splits_is_refused():
    train, test = make_set(), make_set(channels=3)
    with pytest.raises(DistilError, match=r"train images have 1 channel \(grey\) .* test images have 3 channels"):
        source_from_tensors((train.images, train.labels), (test.images, test.labels), "abc", name="toy")


def test_an_error_in_the_test_split_names_the_test_split():
    train = make_set((3, 3))
    with pytest.raises(DistilError, match="toy test: class 'b' has no images"):
        source_from_tensors(
            (train.images, train.labels), (train.images[:2], torch.zeros(2, dtype=torch.int64)), "ab", name="toy"
        )
