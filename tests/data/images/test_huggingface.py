import io
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from distil.data.images.opener import open_source
from distil.errors import DistilError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def picture(color: bool = True, side: int = 5) -> dict:
    array = RANDOM.integers(0, 256, (side, side, 3) if color else (side, side), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": None}


def make(count: int = 10, labels=None, label=None, *, names: tuple[str, str] = ("image", "label"), images=None):
    label = label or datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"id": datasets.Value("int64"), names[0]: datasets.Image(), names[1]: label})
    content = {
        "id": list(range(count)),
        names[0]: images or [picture() for _ in range(count)],
        names[1]: labels or [row % 2 for row in range(count)],
    }
    return datasets.Dataset.from_dict(content, features=features)


def save(tmp_path, dataset) -> str:
    dataset.save_to_disk(str(tmp_path / "saved"))
    return f"hf:{tmp_path / 'saved'}"


def decoded(dataset) -> np.ndarray:
    return np.stack([np.asarray(row["image"]) for row in dataset]).transpose(0, 3, 1, 2)


def test_a_saved_dataset_with_train_and_test(tmp_path):
    train, test = make(10), make(6)
    source = open_source(save(tmp_path, datasets.DatasetDict({"train": train, "test": test, "validation": make(2)})))
    assert source.test is not None
    assert np.array_equal(source.train.images.numpy(), decoded(train))
    assert np.array_equal(source.test.images.numpy(), decoded(test))
    assert source.train.labels.tolist() == [0, 1] * 5
    assert (source.train.classes, source.key, source.note) == (("cat", "dog"), "custom", "")
    assert source.name == f"hf:{tmp_path / 'saved'}"


def test_a_validation_split_stands_in_for_test(tmp_path):
    source = open_source(save(tmp_path, datasets.DatasetDict({"train": make(10), "validation": make(6)})))
    assert source.test is not None
    assert len(source.test) == 6
    assert source.note == "the test split is the split 'validation'"


def lines_left_out(source) -> list[str]:
    return [str(part) for part in source.inventory.left_out]


def test_other_splits_are_named(tmp_path):
    splits = {"train": make(10), "test": make(6), "validation": make(4), "extra": make(2)}
    source = open_source(save(tmp_path, datasets.DatasetDict(splits)))
    assert lines_left_out(source) == [
        "4 images of the split 'validation': there is a test split, and images for validation are held out of the "
        "training images",
        "2 images of the split 'extra': neither the training nor the test split",
    ]
    assert str(source.inventory).splitlines()[1:3] == [
        "  train: 10 images of 5 x 5 pixels, from split 'train'",
        "  test: 6 images of 5 x 5 pixels, from split 'test'",
    ]


@pytest.mark.parametrize("name", ["dev", "eval", "val", "Testing"])
def test_splits_of_other_names_are_understood(tmp_path, name):
    source = open_source(save(tmp_path, datasets.DatasetDict({"training": make(10), name: make(6)})))
    assert source.test is not None
    assert len(source.test) == 6
    assert source.note == f"the test split is the split {name!r}"


def test_two_splits_of_one_kind_are_refused(tmp_path):
    spec = save(tmp_path, datasets.DatasetDict({"train": make(10), "dev": make(6), "eval": make(6)}))
    with pytest.raises(DistilError, match="more than one val split, 'dev' and 'eval'"):
        open_source(spec)


def test_a_test_split_without_labels_is_not_the_test_split(tmp_path):
    hidden = make(6, [-1] * 6)
    source = open_source(
        save(tmp_path, datasets.DatasetDict({"train": make(10), "test": hidden, "validation": make(4)}))
    )
    assert source.note == "the test split is the split 'validation'"
    assert lines_left_out(source) == ["6 images of the split 'test': its images have no labels"]


def test_unicode_forms_of_one_label_are_one_class(tmp_path):
    labels = ["caf\u00e9", "cafe\u0301", "b", "b"]
    source = open_source(save(tmp_path, make(4, labels, datasets.Value("string"))))
    assert source.train.classes == ("b", "caf\u00e9")


def test_a_single_dataset_is_split_by_the_seed(tmp_path):
    source = open_source(save(tmp_path, make(20)), seed=2)
    assert source.test is not None
    assert (source.train.counts, source.test.counts) == ((8, 8), (2, 2))
    assert "20% of each class (4 images) held out with seed 2" in source.note


def test_the_columns_are_found_by_their_types(tmp_path):
    assert open_source(save(tmp_path, make(names=("photo", "animal")))).train.classes == ("cat", "dog")


def test_fine_labels_are_taken_before_others(tmp_path):
    dataset = make(10).rename_column("label", "coarse_label")
    fine = [row % 5 for row in range(10)]
    label = datasets.ClassLabel(names=list("abcde"))
    dataset = dataset.add_column("fine_label", fine).cast_column("fine_label", label)
    assert open_source(save(tmp_path, dataset)).train.classes == tuple("abcde")


@pytest.mark.parametrize(
    ("dtype", "labels", "classes"),
    [("int64", [30, 7] * 5, ("7", "30")), ("string", ["dog", "cat"] * 5, ("cat", "dog"))],
)
def test_plain_labels_are_sorted(tmp_path, dtype, labels, classes):
    dataset = make(10, labels, datasets.Value(dtype))
    source = open_source(save(tmp_path, datasets.DatasetDict({"train": dataset, "test": dataset})))
    assert source.train.classes == classes
    assert source.train.labels.tolist() == [1, 0] * 5


def test_rows_that_were_selected_or_shuffled_stay_together(tmp_path):
    whole = make(12)
    chosen = whole.select([11, 2, 5, 4])
    source = open_source(save(tmp_path, datasets.DatasetDict({"train": chosen, "test": chosen})))
    assert np.array_equal(source.train.images.numpy(), decoded(chosen))
    assert source.train.labels.tolist() == [1, 0, 1, 0]


def test_grey_pictures_make_a_grey_set_and_size_resizes(tmp_path):
    images = [picture(color=False, side=4 + row) for row in range(10)]
    spec = save(tmp_path, make(10, images=images))
    assert open_source(spec, size=6).train.images.shape[1:] == (1, 6, 6)
    with pytest.raises(DistilError, match=r"train row 0 is 4 x 4 and .* train row 1 is 5 x 5 pixels"):
        open_source(spec)


def two_image_columns():
    return make().add_column("other", [picture()] * 10).cast_column("other", datasets.Image())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (lambda: make().remove_columns("image"), "needs one column of type Image, and has 0 among id, label"),
        (lambda: two_image_columns(), "needs one column of type Image, and has 2 among"),
        (lambda: make().remove_columns("label"), r"needs one column of type ClassLabel, .* it has id .*, image"),
        (lambda: make(10, [0.5] * 10, datasets.Value("float32")), "needs one column of type ClassLabel"),
        (lambda: make(10, [0, 1, -1, None] + [0] * 6), "train: row 2 has label -1, which is no class"),
        (lambda: make(10, ["a", None] * 5, datasets.Value("string")), "train: row 1 has label None"),
        (lambda: make(10, [0] * 10), "class 'dog' has no images"),
        (lambda: make(4, images=[picture(), picture(), None, picture()]), "train: row 2 has no image"),
        (lambda: make(4, images=[picture()] * 3 + [{"bytes": b"x", "path": None}]), "cannot read the image .* row 3"),
        (lambda: datasets.DatasetDict({"test": make()}), "has no split 'train': it has 'test'"),
        (lambda: make(4).select([]), "cannot load hf:.*saved: .* Write the folder again"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(tmp_path, dataset, message):
    spec = save(tmp_path, dataset())
    with pytest.raises(DistilError, match=message):
        open_source(spec)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DistilError, match="none is not a dataset on disk: expected a folder written by save_to_disk"):
        open_source(f"hf:{tmp_path / 'none'}")


def test_a_damaged_folder_is_named(tmp_path):
    spec = save(tmp_path, make())
    for path in (tmp_path / "saved").glob("*.arrow"):
        path.write_bytes(b"damage")
    with pytest.raises(DistilError, match=r"cannot load hf:.*saved: .* Write the folder again with save_to_disk"):
        open_source(spec)


def test_without_the_flag_the_hub_is_not_asked(monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(DistilError, match=r"cannot load hf:nobody/nothing: .* download=True fetches it"):
        open_source("hf:nobody/nothing")
    assert before == datasets.config.HF_HUB_OFFLINE


def test_the_flag_the_configuration_and_no_code_reach_the_hub(monkeypatch):
    calls = []

    def load_dataset(path, name=None, *, download_config, trust_remote_code=None):
        calls.append((path, name, download_config.local_files_only, trust_remote_code, datasets.config.HF_HUB_OFFLINE))
        return datasets.DatasetDict({"train": make(10)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    open_source("hf:someone/pictures:small", download=True)
    open_source("hf:someone/pictures")
    assert calls == [
        ("someone/pictures", "small", False, False, False),
        ("someone/pictures", None, True, False, True),
    ]


def test_the_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DistilError, match=r"need the package `datasets`.*pip install 'distil\[huggingface\]'"):
        open_source("hf:anything")


def test_images_beyond_the_memory_limit_stay_where_they_are(tmp_path):
    spec = save(tmp_path, datasets.DatasetDict({"train": make(10), "test": make(6)}))
    held, lazy = open_source(spec), open_source(spec, memory=0)
    for one, other in ((held.train, lazy.train), (held.test, lazy.test)):
        assert not isinstance(other.images, torch.Tensor)
        assert torch.equal(one.images, other.images[:])
        assert torch.equal(one.labels, other.labels)
