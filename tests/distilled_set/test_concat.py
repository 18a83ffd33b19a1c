"""Sets that grow: several made one, and some classes of one."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open

from distil.data.images.digits import digits_source
from distil.dataset.config import Dct as DctSettings
from distil.dataset.config import Fixed, Matching
from distil.dataset.distil import distil_dataset
from distil.distilled_set.concat import statistics
from distil.distilled_set.export import export
from distil.distilled_set.parts import made_from, provenance
from distil.distilled_set.record import DistilledSet
from distil.errors import DistilError
from distil.evaluation.evaluator import evaluate_distilled
from distil.evaluation.protocols import protocol_for
from distil.functional.regions import grid_regions
from distil.parameterizations.dct import Dct
from distil.report.pictures import draw_set

from .test_artifact import changed, code_of_the_page, make_set, rewrite, shades


def letters(names, **options) -> Any:
    """A set of grids whose classes have these letters as names."""
    return replace(make_set(classes=len(names), **options), classes=tuple(names))


def dct_set(names, *, bits=4, seed=0, count=6, per_class=1, **changes) -> Any:
    """Two images of 64 of 128 (4 bits) or one of 64 values in an item."""
    generator = torch.Generator().manual_seed(seed)
    shape, items = (1, 8, 8), len(names) * per_class
    kept = torch.randperm(64, generator=generator)[:count].sort().values
    made = Dct(kept, shape, bits, spans=torch.rand(count, generator=generator) + 0.1)
    params = torch.randint(0, 256, (items, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    return replace(
        make_set(classes=len(names)),
        **{"params": params, "labels": labels, "classes": tuple(names), "parameterization": made, **changes},
    )


def equal(a, b):
    return a.params.dtype == b.params.dtype and torch.equal(a.params, b.params) and a.header() == b.header()


@pytest.mark.parametrize("kind", ["grid", "windows", "dct", "dct alike", "float"])
def test_decoding_the_whole_is_decoding_the_parts(tmp_path, kind):
    if kind.startswith("dct"):
        seeds = (0, 0, 0) if kind == "dct alike" else (0, 1, 2)
        sets = [dct_set(names, seed=s, per_class=1 + s) for names, s in zip(("ab", "cd", "e"), seeds, strict=True)]
    else:
        options = {"dtype": torch.float32} if kind == "float" else {}
        sets = [letters(names, seed=s, per_class=1 + s, **options) for s, names in enumerate(("ab", "cd", "e"))]
        if kind == "windows":
            regions = grid_regions(2, (8, 8))[None].repeat(4, 1, 1)
            regions[:, 3] = torch.tensor([1.0, 2, 5, 7])
            sets[1] = changed(sets[1], regions=regions)
    made = DistilledSet.concat(sets)
    whole, parts = made.decoded(), [one.decoded() for one in sets]
    assert torch.equal(whole.images, torch.cat([one.images for one in parts]))
    starts = (0, 2, 4)
    assert torch.equal(whole.labels, torch.cat([one.labels + at for one, at in zip(parts, starts, strict=True)]))
    assert made.classes == ("a", "b", "c", "d", "e")
    assert made.parameterization.kind == ("dct-groups" if kind == "dct" else "dct" if "dct" in kind else "crops")

    made.save(tmp_path / "a")
    read = DistilledSet.load(tmp_path / "a")
    read.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(read.decoded().images, whole.images)
    by_the_page = code_of_the_page(0)["read"](tmp_path / "a")
    assert torch.allclose(by_the_page[0] * made.std[0] + made.mean[0], whole.images, atol=1e-5)
    assert torch.equal(by_the_page[1], whole.labels)
    with safe_open(tmp_path / "a", framework="pt") as file:
        content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert sum(one.numel() * one.element_size() for one in content.values()) == made.bytes["total"]
    assert read.images_per_class == max(one.images_per_class for one in sets)


def test_groups_cost_what_their_sets_cost():
    sets = [dct_set("ab", seed=0), dct_set("cd", seed=1), dct_set("ef", seed=0)]
    made: Any = DistilledSet.concat(sets)
    assert len(made.parameterization.kept) == 2
    assert made.parameterization.groups.tolist() == [0, 0, 1, 1, 0, 0]
    assert made.bytes["cosines"] == sets[0].bytes["cosines"] + sets[1].bytes["cosines"] + 6
    assert "2 groups" in made.parameterization.describe()


@pytest.mark.parametrize("kind", ["crops", "dct"])
def test_what_is_taken_apart_and_put_together_is_the_same_file(tmp_path, kind):
    made = dct_set("abcd", per_class=2) if kind == "dct" else letters("abcd", per_class=2, utilization=True)
    again = DistilledSet.concat([made.only(["a", "b"]), made.only(["c"]), made.only(["d"])])
    assert again.parts == ()
    for name, one in (("a", made), ("b", again)):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_some_classes_in_another_order():
    made = letters("abcd", per_class=2)
    few = made.only(["d", "b"])
    images = made.decoded_of([6, 7, 2, 3])
    assert few.classes == ("d", "b")
    assert few.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(few.decoded().images, images)
    (part,) = few.parts
    assert (part.classes, part.source_classes) == (("d", "b"), made.classes)
    assert made.only(made.classes) is made
    both = DistilledSet.concat([dct_set("ab", seed=0), dct_set("cd", seed=1)])
    turned = both.only(["c", "a"])
    assert torch.equal(turned.decoded().images, torch.cat([both.decoded_of([2]), both.decoded_of([0])]))
    with pytest.raises(DistilError, match=r"unknown class 'x'. The classes of the set of digits are a, b, c, d"):
        made.only(["x"])
    with pytest.raises(DistilError, match="names 'a' twice"):
        made.only(["a", "a"])
    with pytest.raises(DistilError, match="classes is 'ab': give a list"):
        made.only("ab")
    with pytest.raises(DistilError, match="no item of the set of digits is of 'd'"):
        replace(made, labels=made.labels % 3).only(["d"])


def test_provenance_is_kept_through_everything(tmp_path):
    first = letters("ab", seed=3, settings={"ipc": 1, "factor": 2})
    second = replace(
        letters("cd", per_class=2, settings={"ipc": 2, "factor": 2}),
        method="udd-windows",
        seed=9,
        source="photos",
        source_fingerprint="cd" * 32,
    )
    made = DistilledSet.concat([first, second])
    assert (made.method, made.seed, made.source) == ("idc + udd-windows", 7, "digits + photos")
    assert made.settings == {"factor": 2}
    assert made.source_fingerprint not in ("ab" * 32, "cd" * 32)
    made.only(["d", "a"]).save(tmp_path / "few")
    few = DistilledSet.load(tmp_path / "few")
    kept = {part.method: part for part in few.parts}
    assert kept["idc"].classes == ("a",)
    assert kept["udd-windows"].classes == ("d",)
    assert kept["udd-windows"].source_classes == ("c", "d")
    assert kept["udd-windows"].settings == {"ipc": 2, "factor": 2}
    assert (kept["udd-windows"].seed, kept["udd-windows"].source_fingerprint) == (9, "cd" * 32)
    grown = DistilledSet.concat([few, letters("xy")])
    assert [part.classes for part in grown.parts] == [("a",), ("d",), ("x", "y")]
    assert few.only(["a"]).method == "idc"
    assert json.loads(json.dumps(grown.header()))["parts"][1]["source"] == "photos"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": [{"classes": ["a"]}]}, "parts are .*: expected a list of objects with classes, mean"),
        ({"parts": 3}, "parts are 3: expected a list"),
        ({"classes": "ab"}, "the classes of a part is 'ab': expected a list"),
        ({"classes": ["a"]}, "the parts give classes .*'a', 'c', 'd'.*, and the set has"),
        ({"classes": ["a", "c"]}, "a part gives class 'c', which the images that made it lack"),
        ({"source_classes": ["a", "x"]}, "a part gives class 'b', which the images that made it lack"),
        ({"seed": "x"}, "the seed of a part is 'x'"),
    ],
)
def test_parts_that_make_no_sense_are_refused(tmp_path, change, message):
    made = DistilledSet.concat([letters("ab"), letters("cd", seed=2, method="dm")])
    made.save(tmp_path / "a")
    parts = made.header()["parts"]
    changed_parts = change["parts"] if "parts" in change else [{**parts[0], **change}, parts[1]]
    rewrite(tmp_path / "a", header={"parts": changed_parts})
    with pytest.raises(DistilError, match=message):
        DistilledSet.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([], "there is no set to concatenate"),
        ([letters("ab"), letters("bc")], r"class 'b' is in set 1 and in set 2: a class comes from one set\. Leave it"),
        ([letters("ab"), letters("cd", size=(6, 8))], "images of 8 x 8 pixels and set 2 of 6 x 8: distil both at one"),
        ([letters("ab"), letters("cd", channels=3)], "set 1 has images of 1 channels and set 2 of 3"),
        ([letters("ab"), letters("cd", labels="item")], "set 1 has hard labels and set 2 soft ones: a score would be"),
        (
            [letters("ab"), letters("cd", size=(4, 4), decoded_size=(8, 8))],
            r"an item of set 1 is stored as \[1, 8, 8\] in uint8, one of set 2 as \[1, 4, 4\] in uint8. as_images=True",
        ),
        (
            [letters("ab"), letters("cd", dtype=torch.float32)],
            "in uint8, one of set 2 as .* in float32. as_images=True",
        ),
        ([letters("ab"), dct_set("cd")], r"\(parameterization: 'crops', 'dct'\)\. as_images=True joins their decoded"),
        ([dct_set("ab"), letters("cd")], r"\(parameterization: 'dct', 'crops'\)"),
        ([dct_set("ab"), dct_set("cd", bits=8)], r"\(images in an item: 21, 10\)"),
        ([dct_set("ab", count=9), dct_set("cd", bits=8, count=4)], r"\(images in an item: 14, 16\)"),
        ([dct_set("ab", count=30), dct_set("cd", count=31)], r"\(coefficients in an image: 30, 31\)"),
        ([letters("ab"), letters("cd", regions=grid_regions(1, (8, 8))[None])], r"\(regions of an item: 4, 1\)"),
        ([letters("ab"), changed(letters("cd"), mined=2)], r"\(mined regions: 0, 2\)"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_the_remedy(sets, message):
    with pytest.raises(DistilError, match=message):
        DistilledSet.concat(sets)


def test_other_parameterizations_are_joined_by_their_images():
    sets = [letters("ab"), dct_set("cd")]
    made = DistilledSet.concat(sets, as_images=True)
    images = torch.cat([one.decoded().images.clamp(0, 1) for one in sets])
    assert (made.decoded().images - images).abs().max() <= 0.5 / 255 + 1e-6
    assert made.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 21 + [3] * 21


def test_parameterizations_of_ones_making():
    sets = [replace(shades(), classes=tuple(names)) for names in ("abc", "def")]
    made = DistilledSet.concat(sets)
    assert torch.equal(made.decoded().images, torch.cat([one.decoded().images for one in sets]))
    other = changed(sets[1], picture=sets[1].parameterization.picture / 2)
    with pytest.raises(
        DistilError, match="the sets have other tensors of shades each: its class has to write `joined`"
    ):
        DistilledSet.concat([sets[0], other])


def test_soft_labels_give_classes_of_other_sets_nothing():
    sets = [letters("ab", labels="item"), letters("cde", labels="image", seed=1)]
    made = DistilledSet.concat(sets)
    assert made.labels.shape == (5, 4, 5)
    assert torch.equal(made.labels[:2, 3, :2], sets[0].labels)
    assert torch.equal(made.labels[2:, :, 2:], sets[1].labels)
    assert float(made.labels[:2, :, 2:].sum() + made.labels[2:, :, :2].sum()) == 0
    few = letters("abc", labels="item").only(["c", "a"])
    assert torch.allclose(few.labels.sum(-1), torch.ones(len(few.labels)))
    sure = replace(letters("abc"), labels=torch.tensor([[0.9995, 0.0005, 0], [0, 1, 0], [0.0002, 0.4998, 0.5]]))
    assert sure.only(["a", "c"]).labels.argmax(-1).tolist() == [0, 1]
    split = torch.tensor([[[0.0, 1, 0]] * 2 + [[1.0, 0, 0]] * 2, [[0.0, 1, 0]] * 4, [[0.0, 0, 1]] * 4])
    with pytest.raises(DistilError, match="a soft label of item 0 gives the classes that are kept a probability below"):
        replace(letters("abc"), labels=split).only(["a", "c"])


def test_other_statistics_become_those_of_all_images():
    """Two sets of two classes and one of one, whose images have a mean and a spread each."""
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.rand(4000 * k, generator=generator, dtype=torch.float64) * s for k, s in ((2, 0.5), (2, 1.0), (1, 0.2))
    ]
    sets = [
        letters(names, mean=(float(one.mean()),), std=(float(one.std(correction=0)),))
        for names, one in zip(("ab", "cd", "e"), images, strict=True)
    ]
    mean, std = statistics(sets)
    whole = torch.cat(images)
    assert mean[0] == pytest.approx(float(whole.mean()), abs=1e-12)
    assert std[0] == pytest.approx(float(whole.std(correction=0)), abs=1e-12)
    made = DistilledSet.concat(sets)
    assert (made.mean, made.std) == (mean, std)
    assert [part.mean for part in made.parts] == [one.mean for one in sets]


def test_groups_that_make_no_sense_are_refused():
    sets = [dct_set("ab", seed=0), dct_set("cd", seed=1)]
    made = DistilledSet.concat(sets)
    good: Any = made.parameterization
    for change, message in (
        ({"groups": torch.tensor([0, 0, 1, 2])}, "groups have shape .* one of 2 groups"),
        ({"groups": torch.tensor([0, 0, 1])}, "groups have shape"),
        ({"kept": good.kept * 0}, "give each group different positions below 64"),
        ({"spans": good.spans * torch.inf}, "spans reach"),
        ({"spans": good.spans[:1]}, "kept has shape .* and spans"),
        ({"bits": 5}, "coefficients have 5 bits"),
        ({"shape": (1, 4, 16)}, "items have the shape of images"),
    ):
        with pytest.raises(DistilError, match=message):
            replace(made, parameterization=replace(good, **change))
    with pytest.raises(DistilError, match="are not learned"):
        good.encode(torch.zeros(1, 1, 1, 8, 8))


@pytest.fixture(scope="module")
def pairs():
    """The digits in two groups of classes, each distilled with the coefficients of the lowest frequencies."""
    source = digits_source()
    settings = Matching(
        ipc=1, outer=1, inner=1, width=8, validation=0, parameterization=DctSettings(images=4, bits=4, policy=Fixed())
    )
    groups = (["3", "1"], ["8", "0", "5"])
    return source, [distil_dataset(source.only(group), settings) for group in groups]


def test_sets_of_runs_on_some_classes_are_one_set_that_every_command_takes(pairs, tmp_path):
    source, sets = pairs
    made = DistilledSet.concat(sets)
    assert made.classes == ("3", "1", "8", "0", "5")
    assert [part.source for part in made.parts] == ["digits train (2 of 10 classes)", "digits train (3 of 10 classes)"]
    assert made_from(made, source.train)
    assert made_from(made.only(["5", "1"]), source.train)
    assert made_from(sets[0], source.train.only(sets[0].classes))
    assert not made_from(made, source.test)
    assert not made_from(made, source.train.only(["3", "1", "8"]))
    assert len(provenance(sets[0])) == 1

    test = source.test.only(made.classes)
    scores = evaluate_distilled(made, test, replace(protocol_for("quick", "digits"), epochs=3), runs=1, width=8)
    assert scores.views == 5 * made.images_per_item
    assert scores.bytes == made.bytes["total"]
    export(made, "folder", tmp_path / "folder")
    assert len(list((tmp_path / "folder").rglob("*.png"))) == len(made.decoded().images)
    dataset = made.dataset()
    assert dataset[len(dataset) - 1][1] == 4
    assert sum("Coefficients kept" in text.get_text() for axes in draw_set(made).axes for text in axes.texts) == 1


def test_the_order_of_the_classes_does_not_matter_to_a_score(pairs):
    source, sets = pairs
    rules = replace(protocol_for("quick", "digits"), epochs=2)
    tests = [source.test.only(order) for order in (["3", "1"], ["1", "3"])]
    scores = [evaluate_distilled(sets[0], test, rules, runs=1, width=8).accuracies for test in tests]
    assert scores[0] == scores[1]
