import io
import zipfile

import numpy as np
import pytest

from distil.data.images.opener import open_source
from distil.errors import DistilError

RANDOM = np.random.default_rng(0)


def arrays(train: int = 20, test: int = 10, shape: tuple[int, ...] = (6, 6), classes: int = 2) -> dict[str, np.ndarray]:
    return {
        "x_train": RANDOM.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": RANDOM.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def save(tmp_path, content: dict, name: str = "own.npz") -> str:
    np.savez(tmp_path / name, **content)
    return str(tmp_path / name)


def test_both_splits_are_read(tmp_path):
    content = arrays()
    source = open_source(save(tmp_path, content))
    assert source.test is not None
    assert np.array_equal(source.train.images[:, 0].numpy(), content["x_train"])
    assert np.array_equal(source.test.images[:, 0].numpy(), content["x_test"])
    assert source.train.labels.tolist() == content["y_train"].tolist()
    assert (source.key, source.name, source.note, source.train.classes) == ("custom", "own.npz", "", ("0", "1"))
    assert source.train.mean == pytest.approx((content["x_train"].mean() / 255,))
    assert source.train.std == pytest.approx((content["x_train"].std() / 255,))


@pytest.mark.parametrize("shape", [(6, 5, 3), (3, 6, 5), (6, 5, 1), (1, 6, 5)])
def test_channels_may_come_first_or_last(tmp_path, shape):
    content = arrays(shape=shape)
    source = open_source(save(tmp_path, content))
    first = content["x_train"] if shape[0] in (1, 3) else content["x_train"].transpose(0, 3, 1, 2)
    assert np.array_equal(source.train.images.numpy(), first)
    assert source.train.size == (6, 5)


@pytest.mark.parametrize(
    "names",
    [("train_images", "train_labels", "test_images", "test_labels"), ("X_train", "Y_train", "X_test", "Y_test")],
)
def test_other_names_are_understood(tmp_path, names):
    content = dict(zip(names, arrays().values(), strict=True))
    source = open_source(save(tmp_path, content))
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (20, 10)


def test_without_a_test_split_a_fifth_is_held_out(tmp_path):
    content = arrays(20)
    source = open_source(save(tmp_path, {name: content[name] for name in ("x_train", "y_train")}), seed=4)
    assert source.test is not None
    assert (source.train.counts, source.test.counts) == ((8, 8), (2, 2))
    assert source.note == "no test split given: 20% of each class (4 images) held out with seed 4"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_zero_to_one_become_bytes(tmp_path, dtype):
    content = arrays()
    floats = content | {name: (content[name] / 255).astype(dtype) for name in ("x_train", "x_test")}
    assert np.array_equal(open_source(save(tmp_path, floats)).train.images[:, 0].numpy(), content["x_train"])


def test_any_integers_are_labels(tmp_path):
    content = arrays(4, 2)
    content["y_train"], content["y_test"] = np.array([[7], [-1], [300], [7]]), np.array([[300], [-1]])
    content["x_test"] = np.concatenate([content["x_test"], content["x_test"][:1]])
    content["y_test"] = np.array([[300], [-1], [7]])
    source = open_source(save(tmp_path, content))
    assert source.test is not None
    assert source.train.classes == ("-1", "7", "300")
    assert source.train.labels.tolist() == [1, 0, 2, 1]
    assert source.test.labels.tolist() == [2, 0, 1]


def test_class_names_from_the_file_or_from_beside_it(tmp_path):
    content = arrays()
    (tmp_path / "own.classes.txt").write_text("cat\ndog\n")
    assert open_source(save(tmp_path, content)).train.classes == ("cat", "dog")
    assert open_source(save(tmp_path, content | {"classes": np.array(["x", "y"])})).train.classes == ("x", "y")


@pytest.mark.parametrize("beside", [True, False])
def test_a_wrong_number_of_class_names_is_refused(tmp_path, beside):
    content = arrays()
    if beside:
        (tmp_path / "own.classes.txt").write_text("cat\ndog\ncow\n")
    else:
        content["classes"] = np.array(["cat", "dog", "cow"])
    where = "own.classes.txt" if beside else "the array classes"
    with pytest.raises(DistilError, match=rf"{where} names 3 classes, but the training labels have 2 values"):
        open_source(save(tmp_path, content))


def test_class_names_must_be_strings(tmp_path):
    with pytest.raises(DistilError, match="the array classes must be a list of strings, not int64"):
        open_source(save(tmp_path, arrays() | {"classes": np.array([1, 2])}))


def test_class_names_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "own.classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DistilError, match=r"cannot read the class names in .*own.classes.txt"):
        open_source(save(tmp_path, arrays()))


@pytest.mark.parametrize(
    ("name", "shape", "classes", "key"),
    [
        ("mnist", (28, 28), 10, "mnist"),
        ("fashionmnist", (28, 28, 1), 10, "fashionmnist"),
        ("svhn_small", (32, 32, 3), 10, "svhn"),
        ("svhn", (3, 32, 32), 10, "svhn"),
        ("cifar10", (32, 32, 3), 10, "cifar10"),
        ("cifar100", (32, 32, 3), 100, "cifar100"),
        ("cifar10", (32, 32), 10, "custom"),
        ("cifar10", (16, 16, 3), 10, "custom"),
        ("cifar10", (32, 32, 3), 4, "custom"),
        ("other", (28, 28), 10, "custom"),
    ],
)
def test_a_known_name_with_its_shape_is_that_dataset(tmp_path, name, shape, classes, key):
    source = open_source(save(tmp_path, arrays(100, 100, shape, classes), f"{name}.npz"))
    assert source.key == key
    published = {"mnist": (0.1307,), "cifar100": (0.5071, 0.4866, 0.4409), "svhn": (0.4377, 0.4438, 0.4728)}
    if key in published:
        assert source.train.mean == published[key]
    if key == "custom":
        assert source.train.mean == pytest.approx(source.train.images.double().mean((0, 2, 3)).div(255).tolist())


def test_size_resizes_and_a_known_file_stays_known(tmp_path):
    source = open_source(save(tmp_path, arrays(20, 10, (28, 28), 10), "mnist.npz"), size=16)
    assert source.test is not None
    assert (source.train.size, source.test.size, source.key) == ((16, 16), (16, 16), "mnist")


def without(*names: str):
    return lambda content: {name: array for name, array in content.items() if name not in names}


def changed(**changes):
    return lambda content: content | {name: change(content[name]) for name, change in changes.items()}


def with_nan(images):
    floats = images / 255
    floats[3, 2, 2] = np.nan
    return floats


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("x_train", "y_train"), "has no training split: expected x_train and y_train, found x_test, y_test"),
        (
            without("y_train"),
            "has x_train but no y_train: found x_train, x_test, y_test. Images and labels come",
        ),
        (without("x_test"), "has y_test but no x_test"),
        (changed(y_train=lambda y: y[:5]), "x_train has 20 images but y_train has 5 labels"),
        (changed(x_train=lambda x: x[:0], y_train=lambda y: y[:0]), "x_train has 0 images"),
        (changed(y_train=lambda y: y + 0.5), "y_train must be one integer or one name an image, not float64"),
        (changed(y_train=lambda y: np.eye(2)[y]), r"y_train must be .* of shape \(20, 2\).* y.argmax\(1\)"),
        (changed(y_test=lambda y: y + 1), "the test split has label 2, which no training image has"),
        (changed(y_train=lambda y: y * 0, y_test=lambda y: y * 0), r"only one class \('0'\)"),
        (changed(x_train=with_nan), "x_train has a pixel that is NaN or infinite in image 3"),
        (changed(x_train=lambda x: x / 1.0), "x_train is float64 and has values from .* must lie in .*divide by 255"),
        (changed(x_test=lambda x: x / 255 - 0.5), "x_test is float64 and has values from -0.5 to"),
        (changed(x_train=lambda x: x[:, 0]), r"x_train has shape \(20, 6\): expected \(n, h, w\)"),
        (changed(x_train=lambda x: np.stack([x] * 4, -1)), r"x_train has shape \(20, 6, 6, 4\): .* 1 or 3 channels"),
        (changed(x_train=lambda x: x[:, :0]), "images need at least one pixel"),
        (
            changed(x_test=lambda x: x[:, :4]),
            "train images have 1 channel .* 6 x 6 pixels but .* 4 x 6 pixels",
        ),
        (changed(x_test=lambda x: np.stack([x] * 3, -1)), "but the test images have 3 channels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, spoil, message):
    with pytest.raises(DistilError, match=r"own.npz.*" + message):
        open_source(save(tmp_path, spoil(arrays())))


@pytest.mark.parametrize("name", ["x_train", "y_test", "classes"])
def test_object_arrays_are_refused_unopened(tmp_path, name):
    path = save(tmp_path, arrays() | {name: np.array([{"any": "object"}] * 20, dtype=object)})
    with pytest.raises(DistilError, match=f"{name} is an object array, .* distil reads no pickles"):
        open_source(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DistilError, match=r"no file at .*none.npz: give an .npz file"):
        open_source(str(tmp_path / "none.npz"))


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = save(tmp_path, arrays())
    whole = (tmp_path / "own.npz").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(DistilError, match=r"own.npz is not an .npz file, or is cut short"):
            open_source(path)


def test_a_damaged_array_is_named(tmp_path):
    path = save(tmp_path, arrays())
    whole = bytearray((tmp_path / "own.npz").read_bytes())
    whole[400] ^= 255
    (tmp_path / "own.npz").write_bytes(whole)
    with pytest.raises(DistilError, match=r"own.npz is corrupt at x_train: .* Copy or write it again"):
        open_source(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(DistilError, match="has no training split"):
        open_source(str(tmp_path / "own.npz"))
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name, array in arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(f"{name}.npy", b"no array" if name == "y_train" else buffer.getvalue())
    with pytest.raises(DistilError, match=r"y_train"):
        open_source(str(tmp_path / "own.npz"))


# ---------------------------------------------------------------------------------------------- splits, labels, memory


def lines_left_out(source) -> list[str]:
    return [str(part) for part in source.inventory.left_out]


def renamed(content: dict, **names: str) -> dict:
    return {names.get(name, name): array for name, array in content.items()}


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        *(("x_val", "y_val"), ("X_valid", "Y_valid"), ("validation_images", "validation_labels"), ("dev_x", "dev_y")),
        *(("images_eval", "labels_eval"), ("x_Validation", "y_Validation")),
    ],
)
def test_a_validation_split_stands_in_for_test(tmp_path, images, labels):
    source = open_source(save(tmp_path, renamed(arrays(20, 6), x_test=images, y_test=labels)))
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (20, 6)
    assert source.note == f"the test split is {images} and {labels}"
    assert lines_left_out(source) == []


def test_a_validation_split_beside_a_test_split_and_other_arrays_are_named(tmp_path):
    content = arrays() | {"val_images": np.zeros((7, 6, 6), np.uint8), "val_labels": np.zeros(7, int)}
    source = open_source(save(tmp_path, content | {"mean": np.zeros(3), "readme": np.array("text")}))
    assert lines_left_out(source) == [
        "7 images of val_images and val_labels: there is a test split, and images for validation are held out of the "
        "training images",
        "2 arrays (mean, readme): not images and labels of a training, test or validation split",
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"x_testing": np.zeros(3)}, "more than one array for one split: x_test and x_testing. Keep one"),
        ({"train_images": np.zeros(3)}, "more than one array for one split: x_train and train_images. Keep one"),
    ],
)
def test_two_arrays_for_one_split_are_refused(tmp_path, extra, message):
    with pytest.raises(DistilError, match=message):
        open_source(save(tmp_path, arrays() | extra))


def test_validation_images_without_labels_are_refused_where_they_would_be_used(tmp_path):
    content = arrays()
    del content["y_test"]
    with pytest.raises(DistilError, match="has dev_images but no dev_labels: found"):
        open_source(save(tmp_path, renamed(content, x_test="dev_images")))


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_labels_may_be_text(tmp_path, dtype):
    content, names = arrays(), np.array(["dog", "caf\u00e9" if dtype == "U" else "cow"])
    texts = {name: names[content[name]].astype(dtype) for name in ("y_train", "y_test")}
    source = open_source(save(tmp_path, content | texts))
    assert source.test is not None
    assert source.train.classes == tuple(sorted(names.tolist()))
    expected = np.unique(names[content["y_train"]], return_inverse=True)[1]
    assert source.train.labels.tolist() == expected.tolist()


def test_class_names_give_text_labels_their_order(tmp_path):
    content, names = arrays(), np.array(["dog", "cat"])
    texts = {name: names[content[name]] for name in ("y_train", "y_test")}
    source = open_source(save(tmp_path, content | texts | {"classes": names}))
    assert source.train.classes == ("dog", "cat")
    assert source.train.labels.tolist() == content["y_train"].tolist()
    with pytest.raises(DistilError, match="the array classes names 'cow', which no training label is"):
        open_source(save(tmp_path, content | texts | {"classes": np.array(["dog", "cow"])}))


def test_unicode_forms_of_one_label_are_one_class(tmp_path):
    content = arrays(4, 2)
    content["y_train"] = np.array(["caf\u00e9", "cafe\u0301", "b", "b"])
    content["y_test"] = np.array(["cafe\u0301", "b"])
    source = open_source(save(tmp_path, content))
    assert source.test is not None
    assert (source.train.classes, source.test.labels.tolist()) == (("b", "caf\u00e9"), [1, 0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["", "b"] * 10), "class name '' is empty"),
        (
            np.array([0.5, 1.0] * 10),
            "must be one integer or one name an image, .* Store class numbers or names",
        ),
        (np.array([0.0, 1.0] * 10), r"Use y.astype\('int64'\)"),
        (np.array([1 << 63, 1] * 10, np.uint64), "y_train must be one integer or one name an image, not uint64"),
        (np.array(["0", "1"] * 10), r"the labels of one split are text, those of the other numbers \(y_test\)"),
        (np.array([b"\xff", b"b"] * 10), "y_train holds bytes that are no UTF-8 text"),
    ],
)
def test_labels_that_name_no_class_are_refused(tmp_path, labels, message):
    content = arrays() | {"y_train": labels}
    if "empty" in message:
        content["y_test"] = labels[:10]
    with pytest.raises(DistilError, match=message):
        open_source(save(tmp_path, content))


def test_an_archive_that_does_not_fit_says_how_much_it_needs(tmp_path, monkeypatch):
    path = save(tmp_path, arrays(1000, 10))
    monkeypatch.setattr("distil.data.fitting.free_memory", lambda: 50_000)
    with pytest.raises(DistilError) as caught:
        open_source(path)
    assert str(caught.value) == (
        f"the arrays of {path} need 80,800 bytes of memory, and 50,000 bytes are available. "
        "Store fewer images, or uint8; pictures in folders are read one by one, with size=N."
    )


def test_running_out_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    path = save(tmp_path, arrays())

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(np.lib.format, "read_array", fail)
    with pytest.raises(DistilError, match=r"own.npz does not fit in memory: it needs 2,400 bytes. Store fewer images"):
        open_source(path)


@pytest.mark.parametrize("shape", [(1 << 40, 6, 6), (20, 6, 7), (3, 6, 6), (1 << 62, 1 << 62, 6)])
def test_a_header_that_claims_another_size_is_refused_before_memory_is_asked_for(tmp_path, shape):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            buffer = io.BytesIO()
            if name == "x_train":
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(buffer, header)
                buffer.write(array.tobytes())
            else:
                np.save(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(DistilError, match=r"corrupt at x_train: shape .* takes .* bytes, but 720 are there"):
        open_source(path)


def test_the_inventory_of_an_archive(tmp_path):
    source = open_source(save(tmp_path, arrays(shape=(6, 5))), size=4)
    assert str(source.inventory) == (
        "Read own.npz (npz): 2 classes\n"
        "  train: 20 images of 5 x 6 pixels, from x_train and y_train\n"
        "  test: 10 images of 5 x 6 pixels, from x_test and y_test\n"
        "  train images by class: 0 10, 1 10\n"
        "  note: the central square of each image is resized to 4 x 4 pixels"
    )
