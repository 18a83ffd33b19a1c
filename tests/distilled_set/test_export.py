import builtins
import json
import os
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from distil.distilled_set.export import export, folder_names
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.files import unfinished_folder
from distil.parameterizations.crops import Crops


def make_set(*, channels=1, labels=None, classes=("boot", "bag", "shirt")) -> DistilledSet:
    generator = torch.Generator().manual_seed(0)
    return DistilledSet(
        params=torch.randint(0, 256, (3, channels, 6, 8), generator=generator, dtype=torch.uint8),
        labels=torch.arange(3) if labels is None else labels,
        parameterization=Crops.grid(2, (6, 8)),
        classes=classes,
        mean=(0.25,) * channels,
        std=(0.5,) * channels,
        method="idc",
        settings={"factor": 2},
        seed=0,
        source="demo",
        source_fingerprint="00",
    )


def soft_labels() -> torch.Tensor:
    return torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(1)).softmax(-1)


def pixels(distilled: DistilledSet) -> np.ndarray:
    return (distilled.decoded().images * 255).round().byte().permute(0, 2, 3, 1).numpy()


def picture(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 3])
def test_imagefolder_reads_an_exported_folder(tmp_path, channels):
    distilled = make_set(channels=channels)
    export(distilled, "folder", tmp_path / "out")
    folder = ImageFolder(str(tmp_path / "out" / "train"))
    assert folder.classes == ["0_boot", "1_bag", "2_shirt"]
    assert len(folder) == 12
    read = (folder[index] for index in range(len(folder)))
    for (image, label), view, expected in zip(read, pixels(distilled), distilled.decoded().labels, strict=True):
        assert label == expected
        assert np.array_equal(np.asarray(image), np.broadcast_to(view, (6, 8, 3)))
    with Image.open(tmp_path / "out" / "train" / "1_bag" / "000.png") as image:
        assert image.mode == ("L" if channels == 1 else "RGB")
    manifest = json.loads((tmp_path / "out" / "distil.json").read_text())
    assert manifest["folders"] == {"0_boot": "boot", "1_bag": "bag", "2_shirt": "shirt"}
    assert manifest["method"] == "idc"
    assert manifest["mean"] == [0.25] * channels
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_soft_labels_are_listed_beside_the_folder(tmp_path):
    distilled = make_set(labels=soft_labels())
    export(distilled, "folder", tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "distil.json").read_text())["probabilities"]
    labels, views = distilled.decoded().labels, pixels(distilled)
    assert len(listed) == 12
    for (name, row), label, view in zip(sorted(listed.items()), *by_folder(distilled, labels, views), strict=True):
        assert row == label.tolist()
        assert name.split("/")[1] == f"{int(label.argmax())}_{distilled.classes[int(label.argmax())]}"
        assert np.array_equal(picture(tmp_path / "out" / name), view[..., 0])


FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def of_classes(classes, labels=None) -> DistilledSet:
    """An item of each label, all of its pixels that label."""
    labels = list(range(len(classes))) if labels is None else labels
    return DistilledSet(
        params=torch.tensor(labels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(),
        labels=torch.tensor(labels),
        parameterization=Crops.grid(1, (4, 4)),
        classes=tuple(classes),
        mean=(0.5,),
        std=(0.5,),
        method="random",
        settings={},
        seed=0,
        source="made up",
        source_fingerprint="",
    )


@pytest.mark.parametrize(
    ("classes", "first"),
    [
        (FASHION, "0_T-shirt_top"),
        (tuple(map(str, range(12))), "00_0"),  # "10" sorts before "2"
        (tuple(map(str, range(10))), "0"),
        (("a", "B"), "0_a"),
        (("B", "a"), "B"),
        (("z", "é", "ä"), "0_z"),
        (("b/x", "b.x"), "0_b_x"),
        (("Straße", "STRASSE"), "0_Straße"),
    ],
)
def test_imagefolder_gives_the_classes_of_the_set(tmp_path, classes, first):
    distilled = of_classes(classes)
    assert export(distilled, "folder", tmp_path / "out") == []
    folder = ImageFolder(str(tmp_path / "out" / "train"))
    assert folder.classes[0] == first
    assert [(np.asarray(image)[0, 0, 0], label) for image, label in folder] == [(i, i) for i in range(len(classes))]
    manifest = json.loads((tmp_path / "out" / "distil.json").read_text())
    assert [manifest["folders"][name] for name in folder.classes] == list(classes)


def test_classes_without_images_keep_the_indices_of_the_others(tmp_path):
    notes = export(of_classes("abcd", [0, 2]), "folder", tmp_path / "out")
    assert notes == [
        "no image is of b, d: their folders are empty and keep the indices of the others, so read them with "
        "ImageFolder(..., allow_empty=True)."
    ]
    folder = ImageFolder(str(tmp_path / "out" / "train"), allow_empty=True)
    assert [(np.asarray(image)[0, 0, 0], label) for image, label in folder] == [(0, 0), (2, 2)]
    with pytest.raises(FileNotFoundError, match="no valid file for the classes b, d"):
        ImageFolder(str(tmp_path / "out" / "train"))
    export(of_classes("abcd"), "folder", tmp_path / "out", overwrite=True)
    assert len(ImageFolder(str(tmp_path / "out" / "train"))) == 4


def by_folder(distilled, labels, views):
    order = sorted(range(len(labels)), key=lambda index: (int(labels[index].argmax()), index))
    return [labels[index] for index in order], [views[index] for index in order]


def test_folder_names_are_safe_and_apart():
    names = ("a/b", "a_b", "A_B", "../x", "", "con", "Con.txt", "été 1", "x" * 300, ".hidden", "nul ", "a b.")
    safe = folder_names(names)
    assert safe[:4] == ["a_b", "a_b_2", "A_B_3", "_x"]
    assert safe[4:8] == ["class", "_con", "_Con.txt", "été 1"]
    assert safe[8:] == ["x" * 100, "hidden", "_nul", "a b"]
    assert len({name.casefold() for name in safe}) == len(names)
    assert len(folder_names(("日本" * 60,))[0].encode()) <= 100
    assert folder_names(("not \udcff text",)) == ["not _ text"]


def test_two_classes_of_like_names_stay_two_classes(tmp_path):
    export(make_set(classes=("a/b", "a_b", "A_B")), "folder", tmp_path / "out")
    assert ImageFolder(str(tmp_path / "out" / "train")).classes == ["0_a_b", "1_a_b_2", "2_A_B_3"]


@pytest.mark.parametrize("channels", [1, 3])
def test_numpy_reads_an_exported_npz(tmp_path, channels):
    distilled = make_set(channels=channels)
    export(distilled, "npz", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["x_train"].dtype == np.uint8
        assert arrays["x_train"].shape == ((12, 6, 8) if channels == 1 else (12, 6, 8, 3))
        assert np.array_equal(arrays["x_train"].reshape(12, 6, 8, channels), pixels(distilled))
        assert arrays["y_train"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert tuple(arrays["classes"]) == distilled.classes
        assert tuple(arrays["mean"]) == distilled.mean
        assert tuple(arrays["std"]) == distilled.std


def test_soft_labels_stay_soft_in_npz(tmp_path):
    distilled = make_set(labels=soft_labels())
    export(distilled, "npz", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["y_train"], distilled.labels.flatten(0, 1).numpy())


def test_an_exported_npz_has_one_spelling(tmp_path):
    export(make_set(), "npz", tmp_path / "a.npz")
    export(make_set(), "npz", tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_pyarrow_reads_an_exported_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    distilled = make_set(channels=3)
    export(distilled, "parquet", tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column("label").to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    (tmp_path / "first.png").write_bytes(table.column("image").to_pylist()[5]["bytes"])
    assert np.array_equal(picture(tmp_path / "first.png"), pixels(distilled)[5])
    assert json.loads(table.schema.metadata[b"distil"])["method"] == "idc"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": ["boot", "bag", "shirt"], "_type": "ClassLabel"}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_reads_an_exported_parquet(tmp_path, soft, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("pyarrow")
    distilled = make_set(labels=soft_labels() if soft else None)
    export(distilled, "parquet", tmp_path / "a.parquet")
    read = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    assert type(read.features["image"]) is datasets.Image
    assert np.array_equal(np.asarray(read[7]["image"]), pixels(distilled)[7, ..., 0])
    if soft:
        assert np.allclose(read[7]["label"], distilled.labels[1, 3])
    else:
        assert read.features["label"].names == ["boot", "bag", "shirt"]
        assert read[7]["label"] == 1


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DistilError, match=r"needs pyarrow, which is not installed: pip install 'distil\[parquet\]'"):
        export(make_set(), "parquet", tmp_path / "a.parquet")
    assert os.listdir(tmp_path) == []


def test_an_unknown_layout(tmp_path):
    with pytest.raises(DistilError, match="cannot export to 'zip': choose one of folder, npz, parquet"):
        export(make_set(), "zip", tmp_path / "a")  # pyright: ignore[reportArgumentType]


def test_nothing_of_the_users_is_overwritten_unasked(tmp_path):
    out, file = tmp_path / "out", tmp_path / "a.npz"
    export(make_set(), "folder", out)
    export(make_set(), "npz", file)
    changed = replace(make_set(), params=255 - make_set().params)
    with pytest.raises(DistilError, match=r"out holds an earlier export: give another folder, or overwrite=True"):
        export(changed, "folder", out)
    with pytest.raises(
        DistilError, match=r"a\.npz is a file that exists already: give another name, or overwrite=True"
    ):
        export(changed, "npz", file)
    with pytest.raises(DistilError, match=r"out is a folder: give the name of a file, such as .*out/distilled\.npz"):
        export(changed, "npz", out, overwrite=True)
    with pytest.raises(DistilError, match="is a file that exists already: give a folder"):
        export(changed, "folder", file, overwrite=True)
    with np.load(file) as arrays:
        assert np.array_equal(arrays["x_train"], pixels(make_set())[..., 0])

    export(changed, "folder", out, overwrite=True)
    export(changed, "npz", file, overwrite=True)
    assert np.array_equal(picture(out / "train" / "0_boot" / "000.png"), pixels(changed)[0, ..., 0])
    with np.load(file) as arrays:
        assert np.array_equal(arrays["x_train"], pixels(changed)[..., 0])
    assert sorted(os.listdir(tmp_path)) == ["a.npz", "out"]


def test_a_folder_of_the_users_own_files_is_never_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DistilError, match="holds files that distil did not write there"):
        export(make_set(), "folder", tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def add_file(out):
    (out / "train" / "0_boot" / "mine.png").write_text("mine")
    return out / "train" / "0_boot" / "mine.png"


def add_beside(out):
    (out / "notes.txt").write_text("mine")
    return out / "notes.txt"


def add_folder(out):
    (out / "train" / "mine").mkdir()
    return out / "train" / "mine"


def add_link(out):
    (out / "link").symlink_to(out.parent)
    return out / "link"


def change_file(out):
    (out / "train" / "2_shirt" / "003.png").write_text("mine")
    return out / "train" / "2_shirt" / "003.png"


@pytest.mark.parametrize("change", [add_file, add_beside, add_folder, add_link, change_file])
def test_what_a_user_added_or_changed_is_never_deleted(tmp_path, change):
    out = tmp_path / "out"
    export(make_set(), "folder", out)
    path = change(out)
    before = sorted(out.rglob("*"))
    with pytest.raises(
        DistilError, match=f"holds what no export wrote, or .*'{path.relative_to(out)}'. Move that away"
    ):
        export(make_set(), "folder", out, overwrite=True)
    assert sorted(out.rglob("*")) == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "manifest",
    [
        "{}",
        "[]",
        "[" * 100_000,
        "no JSON",
        '{"files": ["a"], "folders": {}}',
        '{"files": {"../precious": ""}, "folders": {}}',
        '{"files": {"train/../precious": ""}, "folders": {}}',
        '{"files": {"/etc/hosts": ""}, "folders": {}}',
        '{"files": {}, "folders": {"..": "a"}}',
        '{"folders": {"a": "a"}, "format_version": 1}',
    ],
)
def test_a_folder_is_not_deleted_because_of_a_files_name(tmp_path, manifest):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out" / "distil.json").write_text(manifest)
    with pytest.raises(DistilError, match=r"out/distil\.json (does not list the files of an export|cannot be read)"):
        export(make_set(), "folder", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "distil.json").read_text() == manifest
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with pytest.raises(DistilError, match="out is a link: give a folder that is none"):
        export(make_set(), "folder", tmp_path / "out")
    assert os.listdir(tmp_path / "real") == []


def test_unfinished_folders_of_dead_processes_go_and_others_stay(tmp_path):
    for name in (f".out.{'0a' * 8}.part", ".out.mine.part", f".other.{'0a' * 8}.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    with unfinished_folder(tmp_path / "out") as living:
        export(make_set(), "folder", tmp_path / "out")
        assert living.is_dir()
    assert sorted(os.listdir(tmp_path)) == [f".other.{'0a' * 8}.part", ".out.mine.part", "out"]


def test_an_exported_folder_keeps_its_permissions(tmp_path):
    export(make_set(), "folder", tmp_path / "out")
    (tmp_path / "out").chmod(0o750)
    export(make_set(), "folder", tmp_path / "out", overwrite=True)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    export(make_set(), "folder", tmp_path / "out")
    assert len(ImageFolder(str(tmp_path / "out" / "train"))) == 12


def test_a_failure_half_way_leaves_the_earlier_export(tmp_path, monkeypatch):
    export(make_set(), "folder", tmp_path / "out")
    before = (tmp_path / "out" / "train" / "0_boot" / "000.png").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(DistilError, match=r"cannot write .*out: No space left on device"):
        export(make_set(channels=3), "folder", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "train" / "0_boot" / "000.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("to", ["folder", "parquet"])
def test_two_channels_are_no_picture(tmp_path, to):
    with pytest.raises(DistilError, match=r"images of 2 channels cannot be PNG files .* export to npz instead"):
        export(make_set(channels=2), to, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_the_working_folder_is_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    for out in (".", ".."):
        with pytest.raises(DistilError, match="is the working folder or holds it: give a new folder"):
            export(make_set(), "folder", out)
    assert list(tmp_path.rglob("*")) == [tmp_path / "inside"]
