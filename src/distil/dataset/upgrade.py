"""Settings as version 0.1 wrote them, one flat list of names, as the nested settings of today."""

from typing import Any

from distil.checks import shown
from distil.dataset import config
from distil.errors import DistilError
from distil.fields import from_dict

RULES = ("random", "herding", "k-center", "k-means", "rded")
FLAT = ("formation", "batch_real", "network_data", "network_epochs")
"""Names that only flat settings have; one of them tells that a dictionary is of version 0.1."""

RENAMED = {
    "spectral_views": "images",
    "spectral_start": "start",
    "spectral_refresh": "refresh",
    "formation": "parameterization",
    "batch_real": "batch",
    "batch_views": "batch_synthetic",
    "lr_image": "lr",
    "momentum_image": "momentum",
    "target_updates": "target_reuse",
    "network_data": "networks",
    "augment_network": "network_augment",
    "storage uint4": "bits 4",
}
"""Names of version 0.1 whose setting is called otherwise today."""

GENERAL = ("method", "ipc", "outer", "inner", "seed", "network", "width", "augment", "augment_one", "bfloat16")
PARTS = {
    "parameterization": {"grid": "grid", "spectrum": "dct"},
    "objective": {"gradient": "gradient", "feature": "feature"},
    "networks": {"none": "fresh", "real": "real", "synthetic": "synthetic", "matched": "targets"},
    "policy": {word: word for word in ("fixed", "random", "response", "jitter")},
}
DEFAULTS = {"formation": "grid", "objective": "gradient", "network_data": "real", "policy": "none"}
"""What version 0.1 took for names that a file does not have, where that decides which parts there are."""


def settings_from_dict(values: Any) -> config.Settings:
    """The settings that a run saved as JSON, of this version or of 0.1.

    Raises: DistilError that names the field if this version does not know it, or no run can use its value.
    """
    if not isinstance(values, dict):
        return from_dict(config.Matching, values)
    if "student_steps" in values:
        return from_dict(config.Trajectory, values)
    if values.get("method") in RULES:
        return from_dict(config.Selection, _selection(values) if "network_epochs" in values else values)
    if "parameterization" in values or not any(name in values for name in FLAT):
        return from_dict(config.Matching, values)
    return from_dict(config.Matching, _matching(values))


def _selection(values: dict[str, Any]) -> dict[str, Any]:
    observer = {name: values[name] for name in ("network", "width", "network_epochs") if name in values}
    rest = {name: value for name, value in values.items() if name not in observer}
    return {**rest, "observer": None if values["method"] == "random" else {"kind": "observer", **observer}}


def _matching(flat: dict[str, Any]) -> dict[str, Any]:
    left = dict(flat)
    made = {name: left.pop(name) for name in (*GENERAL, "validation", "validations") if name in left}
    if "target_updates" in left:
        made["target_reuse"] = left.pop("target_updates")
    if "batch_views" in left:
        made["batch_synthetic"] = left.pop("batch_views")
    chosen = {name: left.pop(name, DEFAULTS[name]) for name in ("formation", "objective", "network_data", "policy")}
    made["parameterization"] = _parameterization(left, chosen)
    made["optimizer"] = _taken(left, {"lr_image": "lr", "lr_schedule": "", "momentum_image": "momentum"})
    space, scale = left.pop("lr_space", "pixel"), left.pop("gradient_scale", "raw")
    made["optimizer"] |= {
        "kind": "sgd",
        "lr_space": "normalized" if space == "normalised" else space,
        "gradient_scale": "item" if scale == "canvas" else scale,
    }
    matched = _taken(left, {"distance": "", "layers": ""})
    made["objective"] = {"kind": chosen["objective"], **(matched if chosen["objective"] == "gradient" else {})}
    share, temperature = left.pop("cfc_share", 0.0), left.pop("cfc_temperature", 0.1)
    made["contrastive"] = {"kind": "cfc", "share": share, "temperature": temperature} if share else None
    made["sampler"] = {"kind": "uniform", **_taken(left, {"batch_real": "batch"})}
    made["networks"] = _networks(left, chosen["network_data"])
    if unknown := sorted(map(str, left)):
        raise DistilError(
            f"unknown setting {shown(unknown[0])} in the saved run: it was made by another version of distil."
        )
    return made


def _taken(left: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Take names out of what is left, each under its new name ("": the same)."""
    return {new or old: left.pop(old) for old, new in names.items() if old in left}


def _part(slot: str, word: Any, flag: str) -> str:
    if not isinstance(word, str) or word not in PARTS[slot]:
        raise DistilError(
            f"the settings in the saved run cannot be used: {flag} is {shown(word)}: choose from "
            f"{', '.join(PARTS[slot])}."
        )
    return PARTS[slot][word]


def _parameterization(left: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    grid = _taken(left, {"factor": "", "init": ""})
    storage = left.pop("storage", "uint8")
    spectral = _taken(left, {"spectral_views": "images", "spectral_start": "start", "spectral_refresh": "refresh"})
    windows = _taken(left, dict.fromkeys(("windows", "windows_factor", "windows_init", "windows_start", "refresh"), ""))
    apart = _taken(left, {"windows_share": "", "windows_mask": ""})
    loss, freeze = left.pop("windows_loss", "apart"), left.pop("windows_freeze", 0.1)
    steps, jitter = left.pop("proxy_steps", 1000), _taken(left, {"jitter": "", "jitter_draws": ""})
    kind = _part("parameterization", chosen["formation"], "formation")
    policy: dict[str, Any] = {"kind": "fixed"}
    if chosen["policy"] != "none":
        policy = {"kind": _part("policy", chosen["policy"], "policy")}
    if policy["kind"] in ("response", "jitter"):
        policy["proxy_steps"] = steps
    if kind == "dct":
        bits = {"uint4": 4, "uint8": 8, "float32": 32}.get(storage, storage)
        init = "real" if grid.get("init") == "mix" else grid.get("init", "real")
        return {"kind": kind, **spectral, "bits": bits, "init": init, "policy": policy, "freeze": freeze}
    if chosen["policy"] == "none":
        return {"kind": kind, **grid, "storage": storage}
    if policy["kind"] == "jitter":
        policy |= jitter
    matched = {"kind": loss, **(apart if loss == "apart" else {})}
    return {
        "kind": "windows", **grid, "storage": storage, "policy": policy, **windows, "windows_loss": matched,
        "windows_freeze": freeze,
    }  # fmt: skip


def _networks(left: dict[str, Any], data: Any) -> dict[str, Any]:
    kind = _part("networks", data, "network_data")
    step = _taken(left, {f"network_{name}": name for name in ("lr", "momentum", "weight_decay")})
    batch = _taken(left, {"network_batch": "batch", "network_cutmix": "cutmix", "augment_network": "augment"})
    samples, epochs = _taken(left, {"network_samples": "samples"}), _taken(left, {"network_epochs": "epochs"})
    parts = {"real": step | batch | samples, "synthetic": step | batch | epochs, "targets": step}
    return {"kind": kind, **parts.get(kind, {})}
