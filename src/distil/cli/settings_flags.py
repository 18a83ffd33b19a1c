"""Nested settings as flags, and flags as nested settings."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from tyro.conf import arg

from distil.cli.flags import flag_of, nearest
from distil.errors import DistilError
from distil.fields import check_value, leaves, members, slots, with_value

FIRST = (
    "ipc",
    "seed",
    "outer",
    "inner",
    "parameterization",
    "factor",
    "images",
    "bits",
    "policy",
    "windows",
    "objective",
    "lr",
    "observer",
    "model",
    "network",
    "width",
)
"""Settings that are listed before the others, as far as a method has them."""

DECIDED = ("tiles",)
"""Choices that the method itself makes."""
OPTIONAL = ("observer",)
"""Choices that are there where the method makes one."""

Settings = TypeVar("Settings")


def choices(settings: Any) -> dict[str, tuple[tuple[str, ...], dict[str, type], str]]:
    """Settings that choose between parts, by name: (path, parts by the word that names them, the present word)."""
    found = {}
    for path, options, value in slots(settings):
        if len(options) > 1 and path[-1] not in DECIDED and not (path[-1] in OPTIONAL and value is None):
            word = "none" if value is None else getattr(value, "kind", "")
            found[path[-1]] = (path, options, word)
    return found


def with_choices(settings: Settings, values: Mapping[str, str]) -> Settings:
    """The settings with the parts that flags name. values: words by flag.

    A part that takes the place of another keeps what both have.
    Raises: DistilError on a word that names no part.
    """
    done: set[str] = set()
    while True:
        open_slots = {name: found for name, found in choices(settings).items() if name not in done}
        if not open_slots:
            return settings
        name, (path, options, present) = next(iter(open_slots.items()))
        done.add(name)
        word = values.get(flag_of(name), present)
        if word == present:
            continue
        if word not in options:
            raise DistilError(f"{flag_of(name)} is {word!r}.{nearest(word, options)} Choose from {', '.join(options)}.")
        settings = with_value(settings, path, _instead(options[word], _at(settings, path)))


def _at(settings: Any, path: Sequence[str]) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings


def _instead(kind: type, before: Any) -> Any:
    if kind is NoneType:
        return None
    common = {f.name for f in fields(kind)} & ({f.name for f in fields(before)} if is_dataclass(before) else set())  # pyright: ignore
    kept = {name: getattr(before, name) for name in common if _takes(_hint(kind, name), getattr(before, name))}
    return kind(**kept)


def _takes(hint: Any, value: Any) -> bool:
    """Whether a field of this type takes a value."""
    if options := members(hint):
        return type(value) in options.values()
    try:
        check_value(hint, value, "")
    except DistilError:
        return False
    return True


def _hint(kind: type, name: str) -> Any:
    return get_type_hints(kind, include_extras=True)[name]


def flag_classes(settings: Any, hidden: Sequence[str] = ("method",)) -> tuple[type, type]:
    """Two dataclasses, whose fields are the settings as flags with their present values: those of FIRST, the others."""
    given: dict[str, tuple[str, Any, Any]] = {}
    for name, (_, options, present) in choices(settings).items():
        kind = Literal[tuple(options)]  # pyright: ignore[reportInvalidTypeForm]
        told = f"{_title(name)}: {_described(options)}"
        given[name] = (name, Annotated[kind, arg(help=told)], present)
    for leaf in leaves(settings):
        if leaf.name not in hidden:
            given[leaf.name] = (leaf.name, Annotated[_bare(leaf.kind), arg(help=leaf.doc)], leaf.value)
    first = [given.pop(name) for name in FIRST if name in given]
    return tuple(_made(title, rows) for title, rows in (("Settings", first), ("More", list(given.values()))))  # pyright: ignore


def flag_class(settings: Any, hidden: Collection[str], metavars: Mapping[str, str]) -> type:
    """A dataclass whose fields are the plain values of settings as flags, in their order, but for the hidden ones.

    metavars: what help texts call the values of some of them.
    """
    rows = []
    for leaf in leaves(settings):
        if leaf.name not in hidden:
            shown = arg(help=leaf.doc, metavar=metavars.get(leaf.name))
            rows.append((leaf.name, Annotated[_bare(leaf.kind), shown], leaf.value))
    return _made("Settings", rows)


def _made(title: str, rows: list[tuple[str, Any, Any]]) -> type:
    return make_dataclass(title, [(name, kind, field(default=value)) for name, kind, value in rows], frozen=True)


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _described(options: dict[str, type]) -> str:
    told = []
    for word, kind in options.items():
        text = "none" if kind is NoneType else " ".join((kind.__doc__ or word).split()).partition(". ")[0].rstrip(".")
        text = text if text[:2].isupper() else text[0].lower() + text[1:]
        told.append(f"{word} ({text})" if kind is not NoneType else word)
    return "; ".join(told) + "."


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def from_flags(settings: Settings, *given: Any) -> Settings:
    """The settings with the values of parsed flags."""
    values = {f.name: getattr(part, f.name) for part in given for f in fields(part)}
    for leaf in leaves(settings):
        if leaf.name in values and values[leaf.name] != leaf.value:
            settings = with_value(settings, leaf.path, values[leaf.name])
    return settings


def every_leaf(settings: Any) -> dict[str, list[tuple[str, str]]]:
    """All names that some choice of parts could have: name -> [(flag of the choice, its word), ...]."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, (_, options, _) in choices(settings).items():
        for word, kind in options.items():
            if kind is NoneType:
                continue
            made = kind()
            for leaf in leaves(made):
                found.setdefault(leaf.name, []).append((flag_of(name), word))
            for inner, ways in every_leaf(made).items():
                found.setdefault(inner, []).extend(ways)
    return found


def switches(settings: Any) -> set[str]:
    """Flags of settings that take no value."""
    names = {leaf.name for leaf in leaves(settings) if _bare(leaf.kind) is bool}
    for _, options, _ in choices(settings).values():
        for kind in options.values():
            if kind is not NoneType:
                names |= {flag.removeprefix("--").replace("-", "_") for flag in switches(kind())}
    names = {name.removeprefix("no_") for name in names}
    return {flag for name in names for flag in (flag_of(name), flag_of(f"no_{name}"))}


def refuse_unknown(words: Sequence[str], settings: Any, known: set[str], renamed: Mapping[str, str]) -> None:
    """Refuse flags that the settings do not have, where it can be told why: those of version 0.1 that have another name
    today, and those of a part that another choice would bring.

    known: further flags of the command. Raises: DistilError that names the flag and the remedy.
    """
    present, elsewhere = {leaf.name for leaf in leaves(settings)} | set(choices(settings)), every_leaf(settings)
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        if not flag.startswith("--") or flag in known or name in present:
            continue
        if name in renamed:
            raise DistilError(f"{flag} is called {renamed[name]} now.")
        if name in elsewhere:
            choice, word_there = elsewhere[name][0]
            raise DistilError(
                f"{flag} is a setting of {choice} {word_there}, which was not chosen: add {choice} {word_there}, or "
                f"leave {flag} out."
            )
