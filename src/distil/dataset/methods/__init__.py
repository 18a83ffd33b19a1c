"""METHODS: what each method is and its published settings, every number with its source. Nothing here imports torch."""

from dataclasses import replace
from pathlib import PurePath

from distil.dataset.config import Selection, Settings, Trajectory
from distil.dataset.methods import (
    datm,
    dc,
    dm,
    dream,
    dsa,
    fred,
    herding,
    idc,
    idm,
    k_center,
    k_means,
    mtt,
    ncfm,
    random_images,
    rded,
    trajectories,
    udd,
    udd_jitter,
    udd_windows,
)
from distil.dataset.methods.measured import MEASURED
from distil.dataset.methods.method import Method
from distil.dataset.methods.shared import DATASETS, fast
from distil.errors import DistilError
from distil.lookup import chosen as chosen_from
from distil.lookup import unknown

RECIPES = ("published", "fast")
"""Whose numbers a preset holds: the papers', or those of this library for little time."""

MODULES = (
    random_images,
    herding,
    k_center,
    k_means,
    rded,
    dc,
    dsa,
    dm,
    idm,
    idc,
    dream,
    ncfm,
    mtt,
    datm,
    fred,
    udd,
    udd_jitter,
    udd_windows,
)
METHODS: dict[str, Method] = {
    module.METHOD.name: replace(module.METHOD, measured=MEASURED.get(module.METHOD.name, {})) for module in MODULES
}
"""Every method by name, in the order in which they are best read."""


def source_key(spec: str) -> str:
    """Which data set's settings a SOURCE word means, without opening it: a name in DATASETS, or "custom"."""
    word = spec.lower()
    if word in DATASETS:
        return word
    stem = PurePath(word).stem
    stem = "svhn" if stem == "svhn_small" else stem
    return stem if word.endswith(".npz") and stem in DATASETS and stem != "digits" else "custom"


def preset(method: str, key: str, ipc: int, recipe: str | None = None, *, seed: int = 0) -> Settings:
    """The settings of a method for a data set and a number of images per class.

    key: a name in DATASETS, or "custom". recipe: "published"; or "fast" for this library's settings for minutes, of the
    methods that have some (docs/results/speed.md); None for the method's own default (see `default_recipe`).
    Raises: DistilError on an unknown method, with the nearest name, on an unknown key, and on a recipe that the method
    does not have.
    """
    chosen = method_named(method)
    chosen_from("data set", key, (*DATASETS, "custom"))
    if ipc < 1:
        raise DistilError(f"{{ipc}} is {ipc}: ask for at least 1 image per class.", field="ipc")
    settings = replace(chosen.settings(key, ipc), seed=seed)
    recipe = recipe or default_recipe(method, key)
    if recipe == "published":
        return settings
    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES, field="recipe")
    if not chosen.has_fast or isinstance(settings, Selection):
        having = [name for name, known in METHODS.items() if known.has_fast]
        raise DistilError(f"{method} has no recipe {recipe!r}: {', '.join(having)} have one.")
    return trajectories.fast(settings) if isinstance(settings, Trajectory) else fast(settings)


def default_recipe(method: str, key: str) -> str:
    """The recipe of a method where none is asked for: the published one; of a method that has none (UDD), this
    library's. The settings for the embedded digits take about a minute as they are."""
    return "published" if key == "digits" else method_named(method).recipe


def method_named(name: str) -> Method:
    """Raises: DistilError on an unknown method, with the nearest name."""
    chosen_from("method", name, METHODS)
    return METHODS[name]
