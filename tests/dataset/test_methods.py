"""The published settings, number by number where the papers' code fixes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from distil.cli.settings_flags import choices
from distil.dataset.config import Selection, Trajectory, check_settings
from distil.dataset.methods import DATASETS, METHODS, default_recipe, preset, source_key
from distil.dataset.methods.composition import parts_of
from distil.dataset.methods.measured import MEASURED
from distil.dataset.upgrade import settings_from_dict
from distil.errors import DistilError
from distil.fields import leaves, to_dict


def published(method, key="cifar10", ipc=1):
    """Every setting of a method by the name of its flag, choices between parts by their words."""
    settings = preset(method, key, ipc, "published")
    words = {name: present for name, (_, _, present) in choices(settings).items()}
    return words | {leaf.name: leaf.value for leaf in leaves(settings)}


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_source(name):
    method = METHODS[name]
    needed = set(published(name)) - {"method", "ipc"}
    needed -= {beside for beside in ("contrastive", "classification") if published(name).get(beside) == "none"}
    if not name.startswith("udd"):
        needed.discard("parameterization")
    assert needed - method.sources.keys() == set()
    assert all(method.sources.values())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_its_paper_its_parts_and_its_cost(name):
    method = METHODS[name]
    assert all(text.strip() for text in (method.title, method.description, method.cost, method.paper))
    for recipe in ("published", "fast") if method.has_fast else ("published",):
        parts = parts_of(preset(name, "cifar10", 1, recipe))
        needed = {"parameterization", "objective", "networks", "labels"}
        assert needed | ({"sampler"} if method.kind == "matching" else set()) <= parts.keys()
        assert all(parts.values())


def test_parts_by_their_names():
    assert parts_of(preset("udd", "cifar10", 1)) == {
        "parameterization": "dct, images 32, bits 4, policy response",
        "objective": "gradient, squared distance",
        "networks": "real, batch 64",
        "sampler": "uniform, batch 64",
        "labels": "hard",
        "optimizer": "sgd",
    }
    assert parts_of(preset("herding", "mnist", 1))["networks"] == "convnet3 trained on all images"
    assert parts_of(Trajectory())["objective"] == "trajectory, 50 updates for 2 epochs"
    assert "experts" in parts_of(Trajectory())["networks"]


@pytest.mark.parametrize(
    ("name", "key", "row"),
    [(name, key, row) for name in MEASURED for key in MEASURED[name] for row in MEASURED[name][key]],
)
def test_what_was_measured_stands_on_its_page(name, key, row):
    assert name in METHODS
    assert key in DATASETS
    page = (Path(__file__).parents[2] / row.conditions.page.partition("#")[0]).read_text(encoding="utf-8")
    assert f"{row.mean:.1f} ± {row.std:.1f}" in page


@pytest.mark.parametrize("name", METHODS)
def test_names_of_settings_are_unique(name):
    settings = preset(name, "cifar10", 1)
    names = [leaf.name for leaf in leaves(settings)] + list(choices(settings))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("key", [*DATASETS, "custom"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_every_preset_is_sound_and_survives_json(name, key, ipc):
    settings = preset(name, key, ipc)
    check_settings(settings)
    assert settings.method == name
    assert settings.ipc == ipc
    assert settings_from_dict(json.loads(json.dumps(to_dict(settings)))) == settings


@pytest.mark.parametrize("name", ["dc", "dsa", "dm", "idc", "dream", "idm", "ncfm", "udd", "udd-jitter", "udd-windows"])
@pytest.mark.parametrize("key", [*DATASETS, "custom"])
def test_the_fast_recipe_costs_less_and_is_the_same_method(name, key):
    fast: Any = preset(name, key, 10, "fast")
    slow: Any = preset(name, key, 10, "published")
    check_settings(fast)
    same = {"method", "ipc", "parameterization", "augment", "contrastive", "classification"}
    same |= {"networks"} if name not in ("idm", "ncfm") else set()
    assert all(getattr(fast, field) == getattr(slow, field) for field in same)
    assert {type(fast.networks), type(fast.sampler)} == {type(slow.networks), type(slow.sampler)}
    assert getattr(fast.objective, "layers", None) == getattr(slow.objective, "layers", None)
    if key != "digits":
        assert fast.outer * fast.inner <= slow.outer * slow.inner / 50
        assert fast.sampler.batch <= slow.sampler.batch


def test_udd_takes_the_fast_recipe_unless_another_is_asked_for_and_published_methods_their_own():
    assert [name for name in METHODS if default_recipe(name, "cifar10") == "fast"] == [
        "udd",
        "udd-jitter",
        "udd-windows",
    ]
    assert {default_recipe(name, "digits") for name in METHODS} == {"published"}
    assert preset("udd", "cifar10", 1) == preset("udd", "cifar10", 1, "fast")
    assert preset("idc", "cifar10", 1) == preset("idc", "cifar10", 1, "published")
    having = ", ".join(name for name, method in METHODS.items() if method.has_fast)
    with pytest.raises(DistilError, match=f"^random has no recipe 'fast': {having} have one.$"):
        preset("random", "cifar10", 1, "fast")


@pytest.mark.parametrize(("ipc", "inner", "epochs"), [(1, 1, 1), (10, 10, 50), (50, 50, 10)])
@pytest.mark.parametrize("method", ["dc", "dsa"])
def test_dc_and_dsa_loops(method, ipc, inner, epochs):
    s = published(method, ipc=ipc)
    assert (s["outer"], s["inner"], s["network_epochs"]) == (1000, inner, epochs)
    assert (s["lr"], s["lr_space"], s["momentum"]) == (0.1, "normalized", 0.5)
    assert (s["batch"], s["network_batch"], s["network_lr"], s["network_momentum"]) == (256, 256, 0.01, 0.0)
    assert (s["distance"], s["layers"], s["networks"]) == ("cosine", "all", "synthetic")


def test_dc_starts_from_noise_and_dsa_from_real_images():
    assert (published("dc")["init"], published("dc")["augment"]) == ("noise", "none")
    dsa = published("dsa")
    assert (dsa["init"], dsa["augment"]) == ("real", "color_crop_cutout_flip_scale_rotate")
    assert dsa["augment_one"]


@pytest.mark.parametrize("key", ["mnist", "svhn"])
@pytest.mark.parametrize("method", ["dsa", "dm"])
def test_digits_are_not_mirrored(method, key):
    assert published(method, key)["augment"] == "color_crop_cutout_scale_rotate"


def test_dm():
    s = published("dm")
    assert (s["objective"], s["outer"], s["inner"], s["batch"], s["lr"]) == ("feature", 20000, 1, 256, 1.0)
    assert published("dm", ipc=50)["lr"] == 1.0
    assert published("dm", ipc=100)["lr"] == 10.0


@pytest.mark.parametrize(
    ("key", "ipc", "lr", "samples", "distance", "cutmix"),
    [
        ("cifar10", 1, 5e-4, 2000, "squared", 0.5),
        ("cifar10", 10, 5e-3, 2000, "squared", 0.5),
        ("cifar10", 50, 2.5e-2, 2000, "squared", 0.5),
        ("cifar100", 10, 5e-3, 2000, "squared", 0.5),
        ("svhn", 1, 5e-4, 500, "squared", 0.5),
        ("mnist", 10, 1e-4, 500, "l1", 0.0),
        ("fashionmnist", 10, 1e-4 * 0.765625, 500, "l1", 0.5),
    ],
)
def test_idc(key, ipc, lr, samples, distance, cutmix):
    s = published("idc", key, ipc)
    assert s["lr"] == pytest.approx(lr)
    assert (s["outer"], s["inner"], s["factor"], s["init"]) == (2000, 100, 2, "mix")
    assert (s["network_samples"], s["distance"], s["network_cutmix"]) == (samples, distance, cutmix)
    assert (s["batch"], s["batch_synthetic"], s["layers"]) == (64, 128, "convolutions")
    assert s["augment"] == ("color_crop" if key == "mnist" else "color_crop_cutout")


def test_dream_is_idc_on_the_images_nearest_to_centers():
    dream, idc = published("dream", "svhn", 10), published("idc", "svhn", 10)
    differing = {name for name in dream if dream[name] != idc.get(name)}
    assert differing == {"method", "sampler", "batch", "init_from", "cluster_every", "cluster_pool"}
    assert (dream["sampler"], dream["batch"], dream["cluster_every"], dream["init_from"]) == (
        "kmeans",
        128,
        10,
        "kmeans",
    )


@pytest.mark.parametrize(
    ("key", "ipc", "batch", "every", "steps", "weight"),
    [
        ("cifar10", 1, 5000, 5, 10, 0.5),
        ("cifar10", 10, 256, 30, 10, 0.5),
        ("cifar10", 50, 256, 30, 10, 0.1),
        ("cifar100", 1, 500, 5, 10, 0.5),
        ("cifar100", 10, 256, 30, 50, 0.1),
        ("cifar100", 50, 256, 30, 10, 0.1),
        ("custom", 1, 256, 5, 10, 0.5),
    ],
)
def test_idm(key, ipc, batch, every, steps, weight):
    s = published("idm", key, ipc)
    assert (s["batch"], s["network_every"], s["network_steps"], s["ce_weight"]) == (batch, every, steps, weight)
    assert (s["objective"], s["classification"], s["ce_by_accuracy"]) == ("feature", "ce", True)
    assert (s["networks"], s["network_first"], s["network_most"], s["network_trained"]) == ("pool", 3, 100, 2)
    assert (s["network_batch"], s["network_augment"], s["network_cutmix"]) == (256, "none", 0.0)
    assert (s["outer"], s["inner"], s["factor"], s["init"]) == (20000, 1, 2, "mix")
    assert (s["lr"], s["lr_space"], s["momentum"], s["augment_one"]) == (0.2, "normalized", 0.5, True)


@pytest.mark.parametrize(
    ("key", "ipc", "optimizer", "lr"),
    [("cifar10", 1, "adam", 4.472e-3), ("cifar100", 50, "adam", 1.414e-2), ("cifar100", 10, "sgd", 0.01)],
)
def test_ncfm(key, ipc, optimizer, lr):
    s = published("ncfm", key, ipc)
    assert (s["optimizer"], s["lr"]) == (optimizer, pytest.approx(lr, rel=1e-3))
    assert (s["objective"], s["frequencies"], s["scale"], s["classification"]) == ("characteristic", 4096, 300.0, "ce")
    assert (s["networks"], s["expert_runs"], s["expert_epochs"], s["inner"]) == ("interpolated", 20, 60, 1)


def test_udd_is_idc_with_coefficients_or_with_windows_and_contrast():
    udd, windows, idc = published("udd"), published("udd-windows"), published("idc")
    assert {name for name in idc if windows.get(name) != idc[name]} == {"method", "parameterization", "contrastive"}
    steps = {"gradient_scale", "lr", "lr_schedule"}
    differing = {name for name in idc if udd.get(name) != idc[name]}
    assert differing == {"method", "parameterization", "factor", "init", "storage", *steps}
    assert (udd["parameterization"], udd["gradient_scale"], udd["bits"]) == ("dct", "item", 4)
    assert (udd["policy"], published("udd-jitter")["policy"]) == ("response", "jitter")
    assert all("reconstruction" in METHODS[name].description for name in METHODS if name.startswith("udd"))


@pytest.mark.parametrize(
    ("key", "few", "many"),
    [("cifar10", 32, 16), ("cifar100", 32, 8), ("custom", 32, 16), ("mnist", 16, 8), ("digits", 8, 8)],
)
def test_udd_makes_more_images_in_color_and_of_few_items(key, few, many):
    assert published("udd", key, 1)["images"] == few
    assert published("udd", key, 10)["images"] == many


def test_unknown_methods_and_impossible_counts_are_refused():
    with pytest.raises(DistilError, match=r"unknown method 'iddc'\. Did you mean idc\? Choose from random, herding"):
        preset("iddc", "cifar10", 1)
    with pytest.raises(DistilError, match=r"unknown data set 'MNIST'. Did you mean mnist\?"):
        preset("idc", "MNIST", 1)
    with pytest.raises(DistilError, match=r"ipc is 0: ask for at least 1 image per class"):
        preset("idc", "cifar10", 0)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("cifar10", "cifar10"),
        ("data/FashionMNIST.npz", "fashionmnist"),
        ("svhn_small.npz", "svhn"),
        ("photos/", "custom"),
        ("photos.npz", "custom"),
        ("hf:mnist", "custom"),
    ],
)
def test_source_key(spec, key):
    assert source_key(spec) == key


def test_settings_of_another_version_are_refused():
    values = to_dict(Selection()) | {"color": 3}
    with pytest.raises(DistilError, match="unknown setting 'color' in the saved run"):
        settings_from_dict(values)


def test_the_fast_recipe_has_one_learning_rate_for_all():
    for name in ("idc", "udd"):
        for ipc in (1, 10):
            fast: Any = preset(name, "cifar10", ipc, "fast")
            optimizer = fast.optimizer
            assert (optimizer.gradient_scale, optimizer.lr) == ("item", 0.018)


def test_udd_has_small_windows_but_for_grey_images():
    names = ("windows", "windows_factor", "windows_init", "windows_loss")
    assert [published("udd-windows", "cifar100")[name] for name in names] == [8, 4, "real", "joint"]
    for key in ("mnist", "fashionmnist", "digits"):
        grey = published("udd-windows", key)
        assert [grey[name] for name in names] == [1, 0, "kept", "apart"]
    assert (grey["refresh"], grey["proxy_steps"]) == (2, 300)
