"""What version 0.1 wrote of a detector's run, in today's form."""

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "optimiser": ("training", "optimizer"),
    "colour": ("training", "color"),
    "knowledge": ("distillation", "loss"),
    "loss_form": ("distillation", "loss_form"),
    "teacher_floor": ("distillation", "teacher_floor"),
    "prototypes": ("distillation", "prototypes", "count"),
}
"""Where the flat settings of 0.1 are today; those of gkd and of prototypes follow their names."""
GKD = ("global_weight", "foreground_weight", "background_weight", "soft_weight", "temperature", "decay", "reliability")
GKD += ("projection", "penalty", "use_global", "global_levels", "local_scale", "adapting_kernel")
PARTS = {"training", "distillation"}


def nested(values: Any) -> Any:
    """The settings of a run as today's nested ones; those of 0.1 were flat. What is no mapping is given back."""
    if not isinstance(values, dict) or PARTS & values.keys():
        return values
    made: dict[str, Any] = {"training": {}, "distillation": {"gkd": {}, "prototypes": {}, "loss": "none"}}
    for name, value in values.items():
        *path, last = _place(name)
        here = made
        for part in path:
            here = here[part]
        here[last] = value
    return made


def _place(name: str) -> tuple[str, ...]:
    if name == "method":
        return ("method",)
    if name in RENAMED:
        return RENAMED[name]
    if name in GKD:
        return ("distillation", "gkd", name)
    if str(name).startswith("prototype_"):
        return ("distillation", "prototypes", name.removeprefix("prototype_"))
    return ("training", name)


def tensor_name(name: str) -> str:
    """The name that a tensor of a checkpoint of 0.1 has today; names of today stay as they are."""
    if name.startswith("module.knowledge.parts."):
        return "module.losses." + name.removeprefix("module.knowledge.parts.")
    if name.startswith("gathered."):
        return "extra.gkd." + name.removeprefix("gathered.")
    return name


def upgraded(tensors: Mapping[str, Any], header: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint of 0.1 as today's; one of today stays as it is."""
    settings = nested(header.get("settings"))
    return {tensor_name(name): x for name, x in tensors.items()}, {**header, "settings": settings}
