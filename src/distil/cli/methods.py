"""`distil methods`: every method and every setting, with sources."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from tyro.conf import Positional

from distil.cli.flags import console, option
from distil.cli.settings_flags import choices
from distil.dataset.methods import DATASETS, METHODS, preset
from distil.dataset.methods.composition import ROLES, parts_of
from distil.dataset.methods.method import Method
from distil.detector.presets import DETECTOR_METHODS, DETECTOR_SOURCES, OURS_SOURCES, detector_preset
from distil.fields import leaves

if TYPE_CHECKING:
    from rich.console import Console


def methods(
    name: Annotated[Positional[str], option("NAME", f"{', '.join((*METHODS, *DETECTOR_METHODS))}.")] = "",
) -> None:
    """List the methods: what each is, costs and reaches.

    With NAME: every setting of that method, for each data set, and its source.

    Examples:
    distil methods
    distil methods idc
    distil methods gkd
    """
    if name in DETECTOR_METHODS:
        _describe_detector_method(name)
    elif name:
        preset(name, "custom", 1)
        _describe_method(name)
    else:
        _list_methods()


WIDEST = 100
"""Columns of what is printed, but for the tables of settings: longer lines are hard to read."""


def _narrow() -> "Console":
    output = console()
    output.width = min(WIDEST, output.width)
    return output


def _list_methods() -> None:
    from rich.table import Table

    output = _narrow()
    title = "Test accuracy (%) on CIFAR-10 at 1 / 10 / 50 images per class"
    table = Table(title=title, show_lines=True)
    table.add_column("method", no_wrap=True)
    table.add_column("what it is", ratio=1)
    table.add_column("published", no_wrap=True)
    table.add_column("measured here", no_wrap=True)
    for method in METHODS.values():
        published = method.published.get("cifar10")
        parts = parts_of(preset(method.name, "cifar10", 1))
        what = (
            f"[bold]{method.title}[/]. {method.description}\n[dim]{escape(method.paper)}[/]\n"
            f"Parts: {'; '.join(parts[role] for role in ROLES if role in parts)}\nCost: {method.cost}"
        )
        best = {ipc: [row.mean for row in method.measured.get("cifar10", ()) if row.ipc == ipc] for ipc in IPCS}
        here = [means[0] if means else None for means in best.values()] if any(best.values()) else None
        table.add_row(method.name, what, *("-" if row is None else _accuracies(row) for row in (published, here)))
    output.print(table)
    print("Parts: parameterization; objective; networks; sampler; labels, on CIFAR-10 at 1 per class.")
    print("Cost: that of DC at 1 per class is 1.")
    print("Published: the full recipes. Measured here: small networks and few steps, not comparable with those.")
    print("Conditions, pages and every setting: distil methods NAME; of detectors NAME is")
    print(f"  {', '.join(DETECTOR_METHODS)}.")


def _accuracies(values: Iterable[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.1f}" for value in values)


IPCS = (1, 10, 50)


def _describe_method(name: str) -> None:
    from rich.table import Table

    method, output = METHODS[name], _narrow()
    output.print(f"[bold]{name}[/]: {method.title}. {method.description}", highlight=False)
    output.print(f"Paper: {escape(method.paper)}\nCost, DC at 1 per class being 1: {method.cost}", highlight=False)
    keys = (*DATASETS, "custom")
    made_of = Table(title="Parts, on CIFAR-10 at 1 per class", title_justify="left", show_header=False)
    for role, told in parts_of(preset(name, "cifar10", 1)).items():
        made_of.add_row(role, told)
    output.print(made_of)
    if method.published:
        table = Table(title="Published test accuracy (%), ConvNet-3", title_justify="left")
        for column in ("data set", *(f"{ipc} per class" for ipc in IPCS)):
            table.add_column(column)
        for key, values in method.published.items():
            table.add_row(key, *("-" if value is None else f"{value:.1f}" for value in values))
        output.print(table)

    _describe_measured(method, output)
    values = {(key, ipc): _values(preset(name, key, ipc, "published")) for key in keys for ipc in IPCS}
    shared = Table(title="Settings that are the same everywhere", title_justify="left")
    varying = Table(title="Settings that depend on the data set or on the images per class", title_justify="left")
    for table, columns in (
        (shared, ("flag", "value", "source")),
        (varying, ("flag", "data set", *(f"{ipc} per class" for ipc in IPCS), "source")),
    ):
        for column in columns:
            table.add_column(column, no_wrap=column == "flag")
    for field in dict.fromkeys(field for found in values.values() for field in found):
        if field in ("method", "ipc"):
            continue
        flag, source = "--" + field.replace("_", "-"), method.sources.get(field, "")
        rows = {key: tuple(_setting(values[key, ipc].get(field, "-")) for ipc in IPCS) for key in keys}
        alike: dict[tuple[str, ...], list[str]] = {}
        for key, row in rows.items():
            alike.setdefault(row, []).append(key)
        if len(alike) == 1 and len(set(rows[keys[0]])) == 1:
            shared.add_row(flag, rows[keys[0]][0], source)
            continue
        for index, (row, whose) in enumerate(alike.items()):
            shown, last = "all" if len(alike) == 1 else ", ".join(whose), index == len(alike) - 1
            varying.add_row("" if index else flag, shown, *row, "" if index else source, end_section=last)
    for table in (varying, shared):
        if table.row_count:
            console().print(table)
    print("digits: values of this library, sized for two CPU cores. custom: any other source.")
    if method.has_fast:
        default = " (the default)" if method.recipe == "fast" else ""
        print(f"--recipe fast{default} has values for minutes: docs/results/speed.md.")


def _describe_measured(method: Method, output: "Console") -> None:
    """What was measured here, and how; nothing where nothing was."""
    from rich.table import Table

    if not method.measured:
        print("Measured here: nothing that a results page holds.")
        return
    rows = [(key, row) for key, found in method.measured.items() for row in found]
    how = list(dict.fromkeys(row.conditions for _, row in rows))
    table = Table(title="Accuracy (%) measured here, mean ± standard deviation over seeds", title_justify="left")
    for column in ("data set", "per class", "accuracy", "seeds", "bytes", "conditions"):
        table.add_column(column, no_wrap=True)
    for key, row in rows:
        numbers = (str(row.ipc), f"{row.mean:.1f} ± {row.std:.1f}", str(row.seeds), f"{row.bytes:,}")
        table.add_row(key, *numbers, f"({how.index(row.conditions) + 1})")
    output.print(table)
    for index, one in enumerate(how, 1):
        output.print(f"({index}) {one.text}: {one.page}", highlight=False)


def _values(settings: Any) -> dict[str, Any]:
    """Every setting by the name of its flag, the choices between parts first."""
    chosen = {name: present for name, (_, _, present) in choices(settings).items()}
    return chosen | {leaf.name: leaf.value for leaf in leaves(settings)}


def _describe_detector_method(name: str) -> None:
    from rich.table import Table

    output = console()
    output.print(f"[bold]{name}[/]: {DETECTOR_METHODS[name]}", highlight=False)
    output.print("Paper: Distilling Object Detectors With Global Knowledge. ECCV 2022", highlight=False)
    table = Table(title="Settings of distil detector train", title_justify="left")
    for column in ("flag", "value", "for scenes", "source of the value"):
        table.add_column(column, no_wrap=column == "flag")
    custom, scenes = (_values(detector_preset(name, key)) for key in ("custom", "scenes"))
    sources = DETECTOR_SOURCES | (OURS_SOURCES if name == "gkd" else {})
    for field, value in custom.items():
        if field != "method":
            small = "" if scenes[field] == value else _setting(scenes[field])
            table.add_row(f"--{field.replace('_', '-')}", _setting(value), small, sources.get(field, "ours"))
    output.print(table)


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_setting(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
