"""The published settings, number by number where the papers' code fixes them."""

from dataclasses import asdict, fields

import pytest

from distil.dataset.presets import DATASETS, METHODS, preset, source_key
from distil.errors import DistilError
from distil.settings import CoresetSettings, MatchingSettings, check_settings, settings_from_dict

REGION_FIELDS = {f.name for f in fields(MatchingSettings)} & {
    "policy",
    "windows",
    "windows_share",
    "windows_mask",
    "windows_start",
    "windows_freeze",
    "windows_factor",
    "windows_init",
    "windows_loss",
    "refresh",
    "proxy_steps",
    "jitter",
    "jitter_draws",
    "cfc_share",
    "cfc_temperature",
}


def published(method, key="cifar10", ipc=1):
    return asdict(preset(method, key, ipc))


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_in_force_has_a_source(name):
    method = METHODS[name]
    needed = {field.name for field in fields(preset(name, "cifar10", 1))} - {"method", "ipc"}
    if not name.startswith("udd"):
        needed -= REGION_FIELDS
    assert needed - method.sources.keys() == set()
    assert all(method.sources.values())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("key", [*DATASETS, "custom"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_every_preset_is_sound_and_survives_json(name, key, ipc):
    settings = preset(name, key, ipc)
    check_settings(settings)
    assert settings.method == name
    assert settings.ipc == ipc
    assert settings_from_dict(asdict(settings)) == settings


@pytest.mark.parametrize("name", ["idc", "udd", "udd-jitter", "udd-windows"])
@pytest.mark.parametrize("key", [*DATASETS, "custom"])
def test_the_fast_recipe_costs_less_and_is_the_same_method(name, key):
    fast, published = preset(name, key, 10, "fast"), preset(name, key, 10)
    check_settings(fast)
    same = {"method", "ipc", "factor", "init", "objective", "layers", "policy", "windows", "augment", "cfc_share"}
    assert all(getattr(fast, field) == getattr(published, field) for field in same)
    if key != "digits":
        assert fast.outer * fast.inner <= published.outer * published.inner / 50


@pytest.mark.parametrize(("ipc", "inner", "epochs"), [(1, 1, 1), (10, 10, 50), (50, 50, 10)])
@pytest.mark.parametrize("method", ["dc", "dsa"])
def test_dc_and_dsa_loops(method, ipc, inner, epochs):
    s = published(method, ipc=ipc)
    assert (s["outer"], s["inner"], s["network_epochs"]) == (1000, inner, epochs)
    assert (s["lr_image"], s["lr_space"], s["momentum_image"]) == (0.1, "normalised", 0.5)
    assert (s["batch_real"], s["network_batch"], s["network_lr"], s["network_momentum"]) == (256, 256, 0.01, 0.0)
    assert (s["distance"], s["layers"], s["network_data"]) == ("cosine", "all", "synthetic")


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
    assert (s["objective"], s["outer"], s["inner"], s["batch_real"], s["lr_image"]) == ("feature", 20000, 1, 256, 1.0)
    assert published("dm", ipc=50)["lr_image"] == 1.0
    assert published("dm", ipc=100)["lr_image"] == 10.0


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
    assert s["lr_image"] == pytest.approx(lr)
    assert (s["outer"], s["inner"], s["factor"], s["init"]) == (2000, 100, 2, "mix")
    assert (s["network_samples"], s["distance"], s["network_cutmix"]) == (samples, distance, cutmix)
    assert (s["batch_real"], s["batch_views"], s["layers"]) == (64, 128, "convolutions")
    assert s["augment"] == ("color_crop" if key == "mnist" else "color_crop_cutout")


def test_udd_is_idc_with_cosines_or_with_windows_and_contrast():
    udd, windows, idc = published("udd"), published("udd-windows"), published("idc")
    differing = {name for name in idc if windows[name] != idc[name]}
    assert differing <= {"method", *REGION_FIELDS}
    differing = {name for name in idc if udd[name] != idc[name]}
    steps = {"gradient_scale", "lr_image", "lr_schedule", "storage"}
    assert differing == {"method", "formation", "factor", "init", "spectral_views", "policy", *steps}
    assert (udd["formation"], udd["gradient_scale"]) == ("spectrum", "canvas")
    assert (udd["policy"], published("udd-jitter")["policy"]) == ("response", "jitter")
    assert all("reconstruction" in METHODS[name].description for name in METHODS if name.startswith("udd"))


@pytest.mark.parametrize(
    ("key", "few", "many"),
    [("cifar10", 32, 16), ("cifar100", 32, 8), ("custom", 32, 16), ("mnist", 16, 8), ("digits", 8, 8)],
)
def test_udd_makes_more_views_of_colour_images_and_of_few_canvases(key, few, many):
    assert preset("udd", key, 1).spectral_views == few
    assert preset("udd", key, 10).spectral_views == many


def test_unknown_methods_and_impossible_counts_are_refused():
    with pytest.raises(DistilError, match=r"unknown method 'iddc'\. Did you mean 'idc'\? Methods: random, herding"):
        preset("iddc", "cifar10", 1)
    with pytest.raises(DistilError, match=r"no data set 'MNIST' has settings. Did you mean 'mnist'\?"):
        preset("idc", "MNIST", 1)
    with pytest.raises(DistilError, match=r"--ipc is 0: ask for at least 1 image per class"):
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
    values = asdict(CoresetSettings()) | {"colour": 3}
    with pytest.raises(DistilError, match="unknown setting 'colour' in the saved run"):
        settings_from_dict(values)


def test_the_fast_recipe_has_one_learning_rate_for_all():
    for name in ("idc", "udd"):
        for ipc in (1, 10):
            fast = preset(name, "cifar10", ipc, "fast")
            assert (fast.gradient_scale, fast.lr_image) == ("canvas", 0.018)


def test_udd_has_small_windows_but_for_grey_images():
    udd = preset("udd-windows", "cifar100", 1)
    assert (udd.windows, udd.windows_factor, udd.windows_init, udd.windows_loss) == (8, 4, "real", "joint")
    for key in ("mnist", "fashionmnist", "digits"):
        grey = preset("udd-windows", key, 1)
        assert (grey.windows, grey.windows_factor, grey.windows_init, grey.windows_loss) == (1, 0, "kept", "apart")
    assert (grey.refresh, grey.proxy_steps) == (2, 300)
