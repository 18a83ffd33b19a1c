import json
import os
import re
import struct
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.files import load_tensors, save_tensors
from distil.functional.regions import grid_regions, whole_region
from distil.parameterizations import crops, dct
from distil.parameterizations.base import Pictured, require
from distil.parameterizations.coefficient_storage import packed, unpacked
from distil.parameterizations.crops import Crops
from distil.parameterizations.dct import Dct
from distil.parameterizations.fred import Fred, lowest_first
from distil.parameterizations.plain import PlainParameterization
from distil.report.pictures import draw_set


def make_set(
    *,
    classes=3,
    per_class=1,
    channels=1,
    size=(8, 8),
    regions=None,
    labels="hard",
    dtype=torch.uint8,
    utilization=False,
    seed=0,
    decoded_size=None,
    **changes,
) -> Any:
    generator = torch.Generator().manual_seed(seed)
    count = classes * per_class
    regions = grid_regions(2, size)[None] if regions is None else regions
    params = torch.randint(0, 256, (count, channels, *size), generator=generator, dtype=torch.uint8)
    used = torch.rand(count, *size, generator=generator) if utilization else None
    values = {
        "params": params if dtype == torch.uint8 else params.to(dtype) / 255,
        "labels": torch.arange(classes).repeat_interleave(per_class),
        "parameterization": Crops(regions, decoded_size or size, utilization=used),
        "classes": tuple(f"class {index}" for index in range(classes)),
        "mean": (0.25,) * channels,
        "std": (0.5,) * channels,
        "method": "idc",
        "settings": {"factor": 2, "lr_image": 0.005, "schedule": (1, 2)},
        "seed": 7,
        "source": "digits",
        "source_fingerprint": "ab" * 32,
    }
    shape = {"hard": None, "item": (count, classes), "image": (count, regions.shape[1], classes)}[labels]
    if shape:
        values["labels"] = torch.rand(shape, generator=generator).softmax(-1)
    return DistilledSet(**{**values, **changes})


def changed(made, **changes):
    """A set with other fields, of its own or of its parameterization."""
    mine = {name: changes.pop(name) for name in list(changes) if hasattr(made.parameterization, name)}
    return replace(made, **changes, parameterization=replace(made.parameterization, **mine))


def rewrite(path, *, header=None, drop=(), **tensors):
    """Change a saved file behind distil's back, and take its checksum out: files of before had none."""
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name).clone() for name in file.keys() if name not in drop}  # noqa: SIM118
        stored = json.loads(file.metadata()["distil"])
    stored = {key: value for key, value in {**stored, "checksum": ..., **(header or {})}.items() if value is not ...}
    save_file({**kept, **tensors}, path, {"distil": json.dumps(stored)})


@given(
    classes=st.integers(1, 4),
    per_class=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    decoded_size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factor=st.integers(1, 2),
    unlike=st.booleans(),
    labels=st.sampled_from(["hard", "item", "image"]),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]),
    utilization=st.booleans(),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=40, deadline=None)
def test_a_set_comes_back_as_it_was_and_has_one_spelling_on_disk(
    classes, per_class, channels, size, decoded_size, factor, unlike, labels, dtype, utilization, seed
):
    regions = grid_regions(factor, size)[None]
    if unlike:
        regions = regions.repeat(classes * per_class, 1, 1)
        regions[:, :, 2:] += torch.rand(regions[:, :, 2:].shape, generator=torch.Generator().manual_seed(seed))
    made = make_set(
        classes=classes,
        per_class=per_class,
        channels=channels,
        size=size,
        regions=regions,
        labels=labels,
        dtype=dtype,
        utilization=utilization,
        seed=seed,
        decoded_size=decoded_size,
    )
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder, "a.safetensors"))
        read: Any = DistilledSet.load(Path(folder, "a.safetensors"))
        read.save(Path(folder, "b.safetensors"))
        assert Path(folder, "a.safetensors").read_bytes() == Path(folder, "b.safetensors").read_bytes()
    pairs = [(read.params, made.params), (read.labels, made.labels)]
    pairs.append((read.parameterization.regions, made.parameterization.regions))
    if utilization:
        pairs.append((read.parameterization.utilization, made.parameterization.utilization))
    for after, before in pairs:
        assert after.dtype == before.dtype
        assert torch.equal(after, before)
    assert (read.parameterization.utilization is None) == (not utilization)
    before, after = made.decoded(), read.decoded()
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.labels, after.labels)
    assert before.images.shape == (classes * per_class * factor**2, channels, *decoded_size)
    assert len(before.labels) == len(before.images)
    assert read.header() == made.header()
    assert read.bytes == made.bytes
    assert read.images_per_class == per_class or labels != "hard"


def test_two_processes_would_write_the_same_bytes(tmp_path):
    made = make_set(utilization=True)
    made.save(tmp_path / "a")
    replace(made, settings=dict(reversed(made.settings.items()))).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_decoding_by_the_sentence_in_the_header_needs_safetensors_and_numpy_alone(tmp_path):
    regions = torch.tensor([[[0.0, 0, 3, 4], [2.5, 1, 6.25, 6.5], [3, 2, 6, 8], [0, 0, 5, 6]]]).repeat(3, 1, 1)
    regions[1, 0, 0] = 1
    made = make_set(size=(6, 5), channels=3, regions=regions, decoded_size=(4, 7))
    made.save(tmp_path / "set.safetensors")

    with safe_open(tmp_path / "set.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["distil"])
        canvases, boxes = file.get_tensor("canvases") / 255, file.get_tensor("regions").astype(float)
        labels = file.get_tensor("labels")
    assert header["decode"] == crops.DECODE
    assert header["value_range"] == [0, 1]
    assert header["stored_dtype"] == {"canvases": "uint8", "labels": "uint8", "regions": "float32"}

    def read(canvas, row, column):
        inside = 0 <= row < canvas.shape[1] and 0 <= column < canvas.shape[2]
        return canvas[:, row, column] if inside else np.full(len(canvas), 0.5)

    def at(sample, count, low, high):
        place = low + (sample + 0.5) * (high - low) / count - 0.5
        return min(max(place, low), max(low, high - 1))

    views = []
    height, width = header["view_size"]
    for canvas, regions_of in zip(canvases, boxes, strict=True):
        for x1, y1, x2, y2 in regions_of:
            view = np.empty((3, height, width))
            for u in range(height):
                for v in range(width):
                    y, x = at(u, height, y1, y2), at(v, width, x1, x2)
                    top, left = int(np.floor(y)), int(np.floor(x))
                    down, right = y - top, x - left
                    view[:, u, v] = (1 - down) * (1 - right) * read(canvas, top, left)
                    view[:, u, v] += (1 - down) * right * read(canvas, top, left + 1)
                    view[:, u, v] += down * (1 - right) * read(canvas, top + 1, left)
                    view[:, u, v] += down * right * read(canvas, top + 1, left + 1)
            views.append(view)
    decoded = made.decoded()
    np.testing.assert_allclose(decoded.images.numpy(), np.stack(views), atol=1e-5)
    assert decoded.labels.tolist() == np.repeat(labels, 4).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_whole_item_as_region_decodes_to_the_item():
    made = make_set(size=(6, 5), regions=whole_region((6, 5))[None])
    assert torch.allclose(made.decoded().images, made.params / 255, atol=1e-6)


def test_bytes_by_hand():
    hard = make_set(classes=10, per_class=2, channels=3, size=(32, 32), utilization=True)
    assert hard.bytes == {
        "images": 20 * 3 * 32 * 32,
        "regions": 4 * 4 * 4,
        "labels": 20,
        "total": 61440 + 64 + 20,
        "extra": 20 * 32 * 32 * 4,
    }
    own = grid_regions(2, (32, 32)).repeat(20, 1, 1)
    own[0, 0, 2] = 20
    soft = make_set(classes=10, per_class=2, size=(32, 32), regions=own, labels="image", dtype=torch.float32)
    assert soft.bytes["images"] == 20 * 32 * 32 * 4
    assert soft.bytes["regions"] == 20 * 4 * 4 * 4
    assert soft.bytes["labels"] == 20 * 4 * 10 * 4
    assert soft.bytes["extra"] == 0
    many = make_set(classes=300, size=(2, 2), regions=whole_region((2, 2))[None])
    assert many.bytes["labels"] == 600


def test_the_counted_bytes_are_the_bytes_of_the_file(tmp_path):
    made = make_set(classes=300, utilization=True)
    made.save(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    header = struct.unpack("<Q", content[:8])[0]
    assert len(content) - 8 - header == made.bytes["total"] + made.bytes["extra"]


def test_equal_rows_of_regions_are_kept_as_one():
    rows = grid_regions(2, (8, 8)).expand(3, -1, -1)
    assert make_set(regions=rows).parameterization.regions.shape == (1, 4, 4)
    unlike = rows.clone()
    unlike[2, 3, 0] = 5
    assert make_set(regions=unlike).parameterization.regions.shape == (3, 4, 4)


def test_loaded_tensors_own_their_memory(tmp_path):
    path = tmp_path / "a.safetensors"
    make_set().save(path)
    read: Any = DistilledSet.load(path)
    before = read.params.clone()
    with path.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"\xff" * 200)
    assert torch.equal(read.params, before)
    assert all(tensor.data_ptr() % 16 == 0 for tensor in (read.params, read.labels, read.parameterization.regions))


def test_dataset_normalizes_after_the_transform():
    made = make_set()
    views = made.decoded().images
    seen = []

    def transform(view):
        seen.append(view)
        return 1 - view

    image, label = made.dataset()[5]
    assert torch.allclose(image, (views[5] - 0.25) / 0.5)
    assert label == 1
    assert isinstance(label, int)
    image, _ = made.dataset(transform)[5]
    assert torch.equal(seen[0], views[5])
    assert torch.allclose(image, (1 - views[5] - 0.25) / 0.5)
    image, _ = made.dataset(normalize=False)[5]
    assert torch.equal(image, views[5])
    assert len(made.dataset()) == 12
    _, label = make_set(labels="image").dataset()[11]
    assert torch.equal(label, make_set(labels="image").labels[2, 3])


def test_soft_labels_by_item_are_repeated_for_its_images():
    made = make_set(labels="item")
    assert torch.equal(made.decoded().labels, made.labels.repeat_interleave(4, 0))


def test_images_per_class_is_that_of_the_largest_class():
    assert make_set(per_class=2).images_per_class == 2
    made = make_set()
    assert replace(made, labels=torch.tensor([0, 0, 2])).images_per_class == 2
    soft = torch.tensor([[0.6, 0.2, 0.2], [0.5, 0.3, 0.2], [0.9, 0.0, 0.1]])
    assert replace(made, labels=soft).images_per_class == 3


README_EXAMPLE = """
import torch
from distil.distilled_set.record import DistilledSet

views = torch.utils.data.DataLoader(DistilledSet.load(path).dataset(), batch_size=16, shuffle=True)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(64), torch.nn.ReLU(), torch.nn.LazyLinear(3))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
for epoch in range(40):
    for images, labels in views:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
"""


def test_a_plain_pytorch_loop_trains_on_the_file(tmp_path):
    path = tmp_path / "idc.safetensors"
    make_set().save(path)
    scope = {"path": path}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(README_EXAMPLE, scope)
    assert float(scope["loss"].detach()) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": torch.zeros(3, 8, 8)}, r"params have shape \[3, 8, 8\]: expected \[items, channels"),
        ({"params": torch.zeros(0, 1, 8, 8)}, "none of them 0"),
        ({"params": torch.zeros(3, 1, 8, 8, dtype=torch.int64)}, "params are torch.int64: expected uint8"),
        ({"params": torch.full((3, 1, 8, 8), 1.5)}, r"params reach from 1.5 to 1.5: expected \[0, 1\]"),
        ({"params": torch.full((3, 1, 8, 8), torch.nan)}, "params hold 192 values that are NaN"),
        ({"labels": torch.arange(4)}, r"labels have shape \[4\]: expected \[3\]"),
        ({"labels": torch.tensor([0, 1, 3])}, "labels reach from 0 to 3: expected 0 to 2"),
        ({"labels": torch.tensor([0, 1, -1])}, "labels reach from -1 to 1"),
        ({"labels": torch.full((3, 2), 0.5)}, r"soft labels have shape \[3, 2\]: expected \[3, 3\] or \[3, 4, 3\]"),
        ({"labels": torch.full((3, 3), 0.5)}, "add up to 1.5 to 1.5: expected probabilities"),
        ({"labels": torch.full((3, 3), torch.nan)}, "expected probabilities"),
        ({"labels": torch.tensor([[1.5, -0.5, 0.0]] * 3)}, "soft labels reach from -0.5 to 1.5"),
        ({"regions": torch.zeros(2, 4, 4)}, r"regions have shape \[2, 4, 4\]: expected \[3, images, 4\]"),
        ({"regions": torch.tensor([[[4.0, 0, 4, 8]]])}, r"region 0 of item 0 is \[4.0, 0.0, 4.0, 8.0\].*x2 > x1"),
        (
            {"regions": torch.tensor([[[0.0, 0, 8, 8], [8, 0, 9, 4]]])},
            "region 1 of item 0 .* inside the 8 x 8 item",
        ),
        ({"regions": torch.tensor([[[-1.0, 0, 8, 8]]])}, "starts inside"),
        ({"regions": torch.tensor([[[0.0, 0, 8, torch.inf]]])}, "at most one item further"),
        ({"regions": torch.tensor([[[0.0, 0, 8, torch.nan]]])}, "region 0 of item 0"),
        ({"mean": (0.1, 0.2)}, r"mean is \(0.1, 0.2\): expected one finite number for each of 1 channels"),
        ({"std": (0.0,)}, "std is .* above 0"),
        ({"std": (float("nan"),)}, "std is .*finite"),
        ({"classes": ()}, "classes are .*at least one name"),
        ({"classes": ("a", "b")}, "expected 0 to 1, for 2 classes"),
        ({"size": (8,)}, r"the size of a decoded image is \(8,\): it must be \(height, width\)"),
        ({"size": (0, 8)}, "both at least 1"),
        ({"settings": {"path": Path("x")}}, "settings cannot be written as JSON"),
        ({"settings": {"lr": float("nan")}}, "settings cannot be written as JSON"),
        ({"seed": "7"}, "seed is '7': it must be a whole number"),
        ({"method": None}, "method is None: it must be text"),
        ({"utilization": torch.zeros(3, 4, 4)}, r"utilization has shape \[3, 4, 4\]: expected \[3, 8, 8\]"),
        ({"utilization": torch.full((3, 8, 8), 2.0)}, r"utilization reach from 2 to 2: expected \[0, 1\]"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(changes, message):
    made = make_set()
    with pytest.raises(DistilError, match=message):
        changed(made, **changes)


def refusal(path) -> str:
    with pytest.raises(DistilError) as caught:
        DistilledSet.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "set.safetensors"
    make_set(utilization=True).save(path)
    return path


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.safetensors")


def test_a_folder(saved):
    assert f"this is a folder: give {saved}" in refusal(saved.parent)
    (saved.parent / "empty").mkdir()
    assert "this is a folder, expected a distilled set" in refusal(saved.parent / "empty")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(100), b"a plain text file", bytes(4096)])
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    assert "not a distilled set: it is not a safetensors file" in refusal(path)


@pytest.mark.parametrize("keep", [0, 5, 8, 9, 100, -1])
def test_a_truncated_file(saved, keep):
    content = saved.read_bytes()[:keep]
    saved.write_bytes(content)
    assert f"truncated or damaged at {len(content)} bytes" in refusal(saved)


def test_safetensors_of_another_program(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a", {"format": "pt"})
    save_file({"weight": torch.zeros(2)}, tmp_path / "b")
    for name in ("a", "b"):
        assert "a safetensors file, but not a distilled set" in refusal(tmp_path / name)
        assert "it holds weight" in refusal(tmp_path / name)


def test_a_newer_format(saved):
    rewrite(saved, header={"format_version": 5})
    assert refusal(saved) == (
        f"{saved}: made by a newer distil (format 5, this one reads up to 4): upgrade with pip install -U distil"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": {"format_version": "1"}}, "no distil writes format version '1'"),
        ({"header": {"format_version": ...}}, "no distil writes format version None"),
        ({"header": {"seed": ..., "classes": ...}}, "it lacks classes, seed"),
        ({"header": {"classes": "abc"}}, "classes is 'abc', expected a list"),
        ({"header": {"classes": [1, 2, 3]}}, "classes are (1, 2, 3): give at least one name, as text"),
        ({"header": {"mean": ["a"]}}, "mean is ('a',)"),
        ({"header": {"std": [[1]]}}, "std is ([1],)"),
        ({"header": {"view_size": [8, 8.5]}}, "the size of a decoded image is (8, 8.5)"),
        ({"header": {"settings": []}}, "settings are []"),
        ({"header": {"source": 3}}, "source is 3: it must be text"),
        ({"drop": ("regions",)}, "it lacks regions"),
        ({"labels": torch.arange(2)}, "labels have shape [2]"),
        ({"canvases": torch.full((3, 1, 8, 8), -0.5)}, "params reach from -0.5 to -0.5: expected [0, 1]"),
        ({"canvases": torch.full((3, 1, 8, 8), torch.nan)}, "NaN"),
        ({"regions": torch.tensor([[[4.0, 0, 3, 8]]])}, "with x2 > x1"),
        ({"regions": torch.tensor([[[9.0, 0, 12, 8]]])}, "starts inside the 8 x 8 item"),
    ],
)
def test_contents_that_contradict_each_other(saved, change, message):
    rewrite(saved, **change)
    assert message in refusal(saved)


@pytest.mark.parametrize("make", [lambda: make_set(size=(3, 3), classes=2), lambda: spectral_set(classes=1)])
def test_every_flipped_bit_is_refused(tmp_path, make):
    whole, path = tmp_path / "whole", tmp_path / "flipped"
    made = make()
    made.save(whole)
    data = whole.read_bytes()
    first = data.index(b'\\"decode') + 40
    rule = range(first, data.index(b"label_kind") - 20, 97)  # the rule is long: some of its bytes
    for place in [*range(first), *rule, *range(data.index(b"label_kind") - 20, len(data))]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert "whole" not in refusal(path)


def rewritten(path, **change):
    """A set with a right checksum over wrong content."""
    tensors, header = load_tensors(path)
    header |= change.pop("header", {})
    for name in change.pop("drop", ()):
        del tensors[name]
    save_tensors(path, tensors | change, {key: value for key, value in header.items() if value is not ...})


NONSENSE = [
    ({"header": {"format_version": True}}, "no distil writes format version True"),
    ({"header": {"format_version": 10**300}}, "made by a newer distil (format 1000"),
    ({"header": {"classes": ["a", "a", "b"]}}, "the class name 'a' is given twice: names must differ."),
    ({"header": {"classes": ["a", "", "b"]}}, "class 1 has the name '': give every class a name."),
    ({"header": {"classes": ["a", " ", "b"]}}, "class 1 has the name ' ': give every class a name."),
    ({"header": {"classes": ["a", "\x1b[2J", "b"]}}, "class 1 has the name '\\x1b[2J': it holds '\\x1b', which cannot"),
    ({"header": {"classes": ["a", "\ud800", "b"]}}, "class 1 has the name '\\ud800': it holds '\\ud800', which cannot"),
    ({"header": {"classes": ["a", "\u202eb", "b"]}}, "which cannot be printed. Rename it."),
    ({"header": {"classes": ["a", "b" * 2000, "c"]}}, "class 1 has a name of 2000 characters"),
    ({"header": {"classes": ["a", None, "b"]}}, "classes are ('a', None, 'b'): give at least one name, as text."),
    ({"header": {"classes": [["a"], ["b"], ["c"]]}}, "give at least one name, as text."),
    ({"header": {"classes": {"a": 1}}}, "classes is {'a': 1}, expected a list."),
    (
        {"header": {"mean": [1e308]}},
        "mean is (1e+308,): expected that of images in [0, 1], at least -10 and at most 10.",
    ),
    ({"header": {"mean": [-11]}}, "mean is (-11.0,)"),
    ({"header": {"mean": [True]}}, "mean is (True,): expected one finite number for each of 1 channels."),
    ({"header": {"mean": [10**400]}}, "mean is (1000"),
    (
        {"header": {"std": [1e-300]}},
        "std is (1e-300,): every channel's must be above 0, at least 0.0001 and at most 10",
    ),
    ({"header": {"std": [1e308]}}, "std is (1e+308,)"),
    ({"header": {"std": [-0.5]}}, "std is (-0.5,)"),
    ({"header": {"std": [[0.5]]}}, "std is ([0.5],)"),
    (
        {"header": {"view_size": [20_000, 8]}},
        "the size of a decoded image is (20000, 8): it must be (height, width), both at least 1 and",
    ),
    ({"header": {"view_size": [2**70, 1]}}, f"the size of a decoded image is ({2**70}, 1)"),
    (
        {"header": {"view_size": [5000, 5000]}},
        "the size of a decoded image is (5000, 5000): all 12 images would take 1,200,000,000 bytes",
    ),
    ({"header": {"view_size": [True, 8]}}, "the size of a decoded image is (True, 8)"),
    ({"header": {"view_size": ["8", "8"]}}, "the size of a decoded image is ('8', '8')"),
    ({"header": {"seed": 1.5}}, "seed is 1.5: it must be a whole number."),
    ({"header": {"seed": True}}, "seed is True: it must be a whole number."),
    ({"header": {"seed": 10**300}}, "give a number of at most 63 bits."),
    ({"header": {"settings": [1]}}, "settings are [1]: they must be a dictionary."),
    ({"header": {"method": "a\x00b"}}, "method is 'a\\x00b': it holds '\\x00', which cannot be printed."),
    ({"header": {"source": ["a"]}}, "source is ['a']: it must be text."),
    ({"header": {"source_fingerprint": None}}, "source_fingerprint is None: it must be text."),
    ({"canvases": torch.zeros(3, 1, 8, 8, dtype=torch.int64)}, "canvases are torch.int64: expected uint8 or float32."),
    ({"canvases": torch.zeros(3, 1, 8, 8, dtype=torch.bool)}, "canvases are torch.bool: expected"),
    ({"canvases": torch.zeros(3, 1, 8, 8, dtype=torch.complex64)}, "canvases are torch.complex64: expected"),
    ({"canvases": torch.zeros(3, 1, 8, 8, dtype=torch.float64)}, "canvases are torch.float64: expected"),
    ({"labels": torch.zeros(3, 3, dtype=torch.float64)}, "labels are torch.float64: expected"),
    ({"labels": torch.tensor([True, False, True])}, "labels are torch.bool: expected"),
    ({"labels": torch.tensor([0.0, 1, 2])}, "soft labels have shape [3]"),
    ({"labels": torch.zeros(3, 3, dtype=torch.uint8)}, "labels have shape [3, 3]: expected [3]"),
    ({"regions": torch.zeros(1, 4, 4, dtype=torch.int32)}, "regions are torch.int32: expected float32."),
    ({"regions": torch.zeros(0, 4, 4)}, "regions have shape [0, 4, 4]"),
    ({"regions": torch.full((1, 1, 4), 1e30)}, "region 0 of item 0"),
    ({"drop": ("regions",), "region": torch.zeros(1, 4, 4)}, "it lacks regions."),
    ({"header": {"bytes": {"total": 1}}}, "bytes is {'total': 1}, and the file's tensors give {'images': 192,"),
    ({"header": {"stored_dtype": None}}, "stored_dtype is None, and the file's tensors give {'canvases': 'uint8',"),
    ({"header": {"value_range": [0, 255]}}, "value_range is [0, 255], and the file's tensors give [0, 1]."),
    ({"header": {"label_kind": "x"}}, "label_kind is 'x', and the file's tensors give 'class index of each canvas'."),
    ({"spare": torch.zeros(1)}, "it holds a tensor 'spare', which items stored as crops do not have."),
    (
        {"kept": torch.zeros(1, dtype=torch.int16)},
        "a tensor 'kept', which items stored as crops do not have",
    ),
]


@pytest.mark.parametrize(("change", "message"), NONSENSE)
def test_nonsense_is_refused_by_field(tmp_path, change, message):
    path = tmp_path / "set.safetensors"
    make_set().save(path)
    rewritten(path, **change)
    text = refusal(path)
    assert message in text
    assert text.endswith(("again.", "pip install -U distil"))
    assert len(text) < 1000


SPECTRAL_NONSENSE = [
    ({"header": {"coefficient_bits": 40}}, "coefficients have 40 bits: expected 8, or 4."),
    ({"header": {"coefficient_bits": 4.0}}, "coefficients have 4.0 bits"),
    ({"header": {"coefficient_bits": None}}, "coefficients have None bits"),
    ({"header": {"coefficient_bits": 0}}, "coefficients have 0 bits"),
    ({"header": {"format_version": 1}}, "format_version is 1, and items stored as dct have 2."),
    ({"header": {"format_version": 1, "parameterization": ...}}, "a tensor 'kept', which items stored as crops"),
    ({"header": {"parameterization": "wavelets"}}, "its items are stored as 'wavelets', and distil knows crops, dct"),
    ({"drop": ("spans",)}, "it lacks spans."),
    ({"kept": torch.tensor([0.0, 1, 8, 70, 130])}, "kept are torch.float32: expected int16 or int32."),
    ({"kept": torch.tensor([0, 1, 8, 70, 30000], dtype=torch.int16)}, "kept reaches from 0 to 30000"),
    ({"kept": torch.zeros(0, dtype=torch.int16), "spans": torch.zeros(0)}, "kept has shape [0] and spans [0]"),
    ({"spans": torch.full((5,), torch.nan)}, "spans reach from nan to nan: expected finite numbers above 0"),
    (
        {"spans": torch.full((5,), 1e30)},
        "spans reach from 1e+30 to 1e+30: expected finite numbers above 0, at most 1e+09",
    ),
    ({"regions": torch.zeros(1, 1, 4)}, "a set of coefficients has none."),
]


@pytest.mark.parametrize(("change", "message"), SPECTRAL_NONSENSE)
def test_nonsense_in_a_spectral_set_is_refused_by_field(tmp_path, change, message):
    path = tmp_path / "set.safetensors"
    spectral_set().save(path)
    rewritten(path, **change)
    assert message in refusal(path)


def test_a_file_of_before_without_a_checksum_loads(saved):
    made = DistilledSet.load(saved)
    rewrite(saved)
    with safe_open(saved, framework="pt") as file:
        assert "checksum" not in json.loads(file.metadata()["distil"])
    read = DistilledSet.load(saved)
    assert read.header() == made.header()
    assert torch.equal(read.params, made.params)


def test_a_flipped_label_is_seen_without_a_checksum_where_the_settings_tell(tmp_path):
    path = tmp_path / "set.safetensors"
    make_set(settings={"ipc": 1}).save(path)
    rewrite(path, labels=torch.tensor([2, 1, 2], dtype=torch.uint8))
    assert "labels give class 'class 2' 2 items, and the settings say 1 for every class" in refusal(path)
    for told in ({"ipc": 2}, {}, {"ipc": "1"}):  # of another set, or unknown: nothing can be said
        rewrite(path, header={"settings": told})
        assert DistilledSet.load(path).labels.tolist() == [2, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a", "a", "b")}, "the class name 'a' is given twice"),
        ({"classes": 5}, "classes are 5: give a list of names"),
        ({"mean": None}, r"mean is \(None,\): expected one finite number"),
        ({"mean": (300.0,)}, "at most 10"),
        ({"size": 8}, "the size of a decoded image is 8"),
        (
            {"size": (10_000, 10_000)},
            "all 12 images would take 4,800,000,000 bytes, and the stored parameters have 192",
        ),
        ({"params": np.zeros((3, 1, 8, 8), np.uint8)}, "params are 'ndarray': give a torch tensor"),
        ({"labels": [0, 1, 2]}, "labels are 'list': give a torch tensor"),
        ({"labels": torch.tensor([0, 1, 2], dtype=torch.complex64)}, "labels are torch.complex64"),
        ({"settings": {"a": [10**5000]}}, "settings cannot be written as JSON"),
        ({"seed": 10**5000}, "seed is a number of thousands of digits: give a number of at most 63 bits"),
    ],
)
def test_python_objects_meet_the_same_limits(changes, message):
    with pytest.raises(DistilError, match=message):
        changed(make_set(), **changes)


def test_numbers_of_numpy_and_torch_are_numbers():
    made = make_set(channels=3, mean=torch.full((3,), 0.5), std=np.full(3, 0.25, "f4"))
    assert made.mean == (0.5,) * 3
    assert made.std == (0.25,) * 3


@pytest.mark.parametrize("text", ["{", "[1]", "null", "[" * 100_000])
def test_a_damaged_header(saved, text):
    save_file({"canvases": torch.zeros(1)}, saved, {"distil": text})
    assert "its header is damaged" in refusal(saved)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(saved):
    saved.chmod(0)
    assert "cannot be read (Permission denied)" in refusal(saved)


def test_saving_where_nothing_can_be_written_names_the_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DistilError, match=r"cannot write .*file/set.safetensors"):
        make_set().save(tmp_path / "file" / "set.safetensors")


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DistilError, match="No space left"):
        make_set(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def spectral_set(*, kept=(0, 1, 8, 70, 130), spans=(6.0, 4.0, 4.0, 1.0, 0.5), bits=8, shape=(3, 8, 8), **changes):
    placed = Dct(torch.tensor(kept), shape, bits, torch.tensor(spans))
    return make_set(**({"channels": 3, "parameterization": placed} | changes))


def set_of_masks(bits):
    generator = torch.Generator().manual_seed(0)
    kept = torch.stack([torch.randperm(48, generator=generator)[:10] for _ in range(2)])
    placed = Fred(lowest_first(kept, (6, 8)), (1, 3), (3, 6, 8), bits)
    params, placed = placed.quantize(placed.encode(torch.rand(4, placed.images_per_item, 3, 6, 8, generator=generator)))
    return make_set(channels=3, classes=2, per_class=2, params=params, parameterization=placed)


PAGE = Path(__file__).parents[2] / "docs" / "file.md"


def code_of_the_page(number):
    """A block of code of docs/file.md, run."""
    scope = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number], scope)
    return scope


def spectral_by_four(**changes):
    return spectral_set(bits=4, **changes)


@pytest.mark.parametrize(
    "make",
    [
        make_set,
        partial(make_set, dtype=torch.float32, labels="image"),
        partial(make_set, labels="item"),
        lambda: make_set(classes=300, size=(4, 4)),
        lambda: spectral_set(per_class=2),
        spectral_by_four,
        *(partial(set_of_masks, bits) for bits in (4, 8, 32)),
    ],
)
def test_the_reader_in_the_docs_gives_what_distil_gives(tmp_path, make):
    path = tmp_path / "set.safetensors"
    made = make()
    made.save(path)
    views, labels = code_of_the_page(0)["read"](path)
    expected = made.dataset()
    assert torch.allclose(views, torch.stack([image for image, _ in expected]), atol=1e-5)
    assert labels.dtype == (torch.float32 if made.labels.is_floating_point() else torch.int64)
    assert torch.equal(labels, made.decoded().labels)
    torch.nn.functional.cross_entropy(torch.zeros(len(views), len(made.classes)), labels)


def test_the_docs_tell_how_to_check_the_checksum(tmp_path):
    path = tmp_path / "set.safetensors"
    make_set(utilization=True, classes=2, source="caf\u00e9").save(path)
    is_whole = code_of_the_page(1)["is_whole"]
    assert is_whole(path)
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert not is_whole(path)


def decoded_by_the_rule(path):
    """The file's own words, with nothing of distil."""
    with safe_open(path, framework="np") as file:
        canvases, kept, spans = (file.get_tensor(name) for name in ("canvases", "kept", "spans"))
        bits = json.loads(file.metadata()["distil"])["coefficient_bits"]
    channels, height, width = canvases.shape[1:]

    def row(frequency, length):
        places = np.arange(length)
        values = np.sqrt(2 / length) * np.cos(np.pi * frequency * (places + 0.5) / length)
        return values / np.sqrt(2) if frequency == 0 else values

    views = []
    for canvas in canvases:
        values = canvas.reshape(-1) / 255
        if bits == 4:
            values = np.stack([canvas.reshape(-1) & 15, canvas.reshape(-1) >> 4], 1).reshape(-1) / 15
        for start in range(0, len(values) - len(kept) + 1, len(kept)):
            image = np.full((channels, height, width), 0.5)
            for value, position, span in zip(values[start:], kept, spans, strict=False):
                a, rest = divmod(int(position), height * width)
                b, d = divmod(rest, width)
                image += (value - 0.5) * span * np.einsum("a,b,d", row(a, channels), row(b, height), row(d, width))
            views.append(image)
    return np.stack(views)


@pytest.mark.parametrize(("bits", "views"), [(8, 38), (4, 76)])
def test_a_spectral_set_decodes_as_its_file_says(tmp_path, bits, views):
    made = spectral_set(per_class=2, bits=bits)
    made.save(tmp_path / "set.safetensors")
    read = DistilledSet.load(tmp_path / "set.safetensors")
    assert read.images_per_item == views
    batch = read.decoded()
    assert batch.images.shape == (6 * views, 3, 8, 8)
    assert batch.labels.tolist() == [label for label in range(3) for _ in range(2 * views)]
    np.testing.assert_allclose(batch.images.numpy(), decoded_by_the_rule(tmp_path / "set.safetensors"), atol=1e-5)
    assert torch.equal(read.decoded_of([4]), batch.images[4 * views : 5 * views])
    assert torch.equal(read.decoded().images, made.decoded().images)


def test_a_spectral_file_is_version_2_and_counts_its_cosines(tmp_path):
    made = spectral_set()
    assert made.header()["format_version"] == 2
    assert made.header()["decode"] == dct.DECODE
    assert make_set().header()["format_version"] == 1
    assert made.bytes["cosines"] == 5 * 2 + 5 * 4
    assert made.bytes["total"] == 3 * 192 + 3 + 30
    made.save(tmp_path / "set.safetensors")
    rewrite(tmp_path / "set.safetensors", drop=("kept",))
    with pytest.raises(DistilError, match="lacks kept"):
        DistilledSet.load(tmp_path / "set.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": (0, 0), "spans": (1.0, 1.0)}, "different positions"),
        ({"kept": (0, 192), "spans": (1.0, 1.0)}, "below 192"),
        ({"kept": (0, 1), "spans": (1.0, 1.0, 1.0)}, "one entry of each"),
        ({"kept": (0, 1), "spans": (1.0, 0.0)}, "above 0"),
        ({"bits": 5}, "have 5 bits"),
        ({"bits": 4, "dtype": torch.float32}, "have 4 bits"),
        ({"shape": (3, 4, 4)}, "items have the shape of images"),
        ({"parameterization": Dct(torch.tensor([0]), (3, 8, 8))}, "spans are missing"),
    ],
)
def test_a_spectral_set_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(DistilError, match=message):
        spectral_set(**changes)


def test_two_values_share_a_byte():
    values = torch.randint(0, 16, (3, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert packed(values).shape == (3, 5)
    assert torch.equal(unpacked(packed(values)), values)


@dataclass(frozen=True, eq=False)
class Shades(PlainParameterization):
    """One shared picture, darker or lighter: params are [n, 1, 1, 1], and a file holds the picture."""

    picture: torch.Tensor

    kind: ClassVar = "shades"
    accounts: ClassVar = {"picture": "pictures"}
    types: ClassVar = {"picture": ("float32",), "notes": ("uint8",)}

    @property
    def size(self):
        return self.picture.shape[1], self.picture.shape[2]

    @property
    def images_per_item(self):
        return 1

    def channels(self, params):
        return len(self.picture)

    def encode(self, images):
        return images.mean((1, 2, 3, 4)).view(-1, 1, 1, 1) / self.picture.mean()

    def decode(self, params):
        return self.pixels(params) * self.picture

    def tensors(self):
        return {"picture": self.picture, "notes": torch.zeros(5, dtype=torch.uint8)}

    def header(self):
        return {"decode": "canvases / 255 * picture"}

    def checked(self, params):
        require(tuple(params.shape[1:]) == (1, 1, 1), f"shades have shape {list(params.shape)}.")
        return self

    @classmethod
    def load(cls, params, tensors, header):
        return cls(tensors["picture"])

    def describe(self):
        return "a shade of a picture"

    def pictured(self, params, index):
        return Pictured()


def shades(**changes):
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    params = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    return replace(make_set(channels=3), params=params, parameterization=Shades(picture), **changes)


def test_a_parameterization_of_ones_own_keeps_its_tensors_in_the_file(tmp_path):
    path = tmp_path / "set.safetensors"
    made = shades()
    made.save(path)
    read = DistilledSet.load(path, [Shades])
    assert torch.equal(read.decoded().images, made.decoded().images)
    assert read.bytes == {"images": 3, "labels": 3, "regions": 0, "pictures": 768, "total": 774, "extra": 5}
    assert (read.header()["format_version"], read.header()["parameterization"]) == (3, "shades")
    assert refusal(path).startswith(
        f"{path}: its items are stored as 'shades', and distil knows crops, dct, dct-groups"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ("picture",)}, "it lacks picture"),
        ({"picture": torch.ones(3, 8, 8, dtype=torch.float64)}, "picture are torch.float64: expected float32"),
        ({"regions": torch.zeros(1, 1, 4)}, "it holds a tensor 'regions', which items stored as shades do not have"),
        ({"canvases": torch.zeros(3, 1, 2, 1)}, "shades have shape [3, 1, 2, 1]"),
        ({"header": {"format_version": 2}}, "format_version is 2, and items stored as shades have 3"),
    ],
)
def test_a_damaged_file_of_ones_own_parameterization_is_refused_by_field(tmp_path, change, message):
    path = tmp_path / "set.safetensors"
    shades().save(path)
    rewrite(path, **change)
    with pytest.raises(DistilError, match=re.escape(message)):
        DistilledSet.load(path, [Shades])


@pytest.mark.parametrize("storage", ["uint8", "float32"])
@pytest.mark.parametrize("make", [partial(make_set, labels="image"), partial(spectral_set, labels="item"), shades])
def test_the_decoded_images_are_a_set_by_themselves(tmp_path, make, storage):
    made = make()
    made.as_images(storage).save(tmp_path / "set.safetensors")
    read, expected = DistilledSet.load(tmp_path / "set.safetensors"), made.decoded()
    rounding = 0.5 / 255 if storage == "uint8" else 0
    assert str(read.params.dtype) == f"torch.{storage}"
    assert (read.decoded().images - expected.images.clamp(0, 1)).abs().max() <= rounding + 1e-6
    assert torch.equal(read.decoded().labels, expected.labels)
    assert (read.images_per_item, read.settings, read.method) == (1, made.settings, made.method)


def test_a_picture_of_items_without_a_picture_of_their_own_shows_the_decoded_images():
    texts = {text.get_text() for axes in draw_set(shades()).axes for text in axes.texts}
    assert "Images" in texts
    assert len(draw_set(shades()).axes) == 1
