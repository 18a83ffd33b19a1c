"""Damage to JSON: other keys, types and values.

A mutated tree may hold what json.dumps cannot write, as marks that are replaced in its text.
"""

import json
import random
from typing import Any

from .mutation import Mutation
from .text_damage import text

DEEP = 100_000
RAW = (
    *("null", "true", "false", "0", "-1", "1", "2", "3", "0.5", "-0.0", "1e308", "-1e308", "1e309", "NaN", "Infinity"),
    *("-Infinity", "2147483648", "9223372036854775808", "1e30", "1e-320", "9" * 400, "-" + "9" * 5000, '""', '"0"'),
    *('"1"', '"no"', '"false"', '"NaN"', '" "', r'"\u0000"', r'"\ud800"', r'"\u001b[31m"', '"../../etc/passwd"'),
    *('"/etc/passwd"', '"~"', '"a/b"', '"' + "x" * 100_000 + '"', "[]", "{}", "[[]]", "[null]", "[1, 2]", '{"a": 1}'),
    *("[" * 500 + "]" * 500, "[" * 950 + "]" * 950, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP),
    "[" + "0, " * 50_000 + "0]",
)
MARK = "@@raw%d@@"

_FLAGS = ('"0"', '"1"', '"false"', '"no"', '"Yes"', "true", "false", "null", '""', "2", "0.0", "[]", "[0]")
_IDS = ("true", "false", '"1"', "1.0", "null", '"x"', "-1", "1e308", "9" * 400, "1.5", "[1]", "{}")
_SIDES = ("0", "-1", "24.5", '"24"', "1e308", "true", "100000000", "20", "24.0", "null", "NaN")
_COUNTS = ("0", "-8", "true", "8.0", "1000000", "1000000000", "1e300", '"8"', "null", "[8]", "2.5")
HINTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("iscrowd", "ignore", "fix_boxes"), _FLAGS),
    **dict.fromkeys(("id", "image_id", "category_id"), _IDS),
    **dict.fromkeys(("width", "height"), _SIDES),
    **dict.fromkeys(("channels", "head_convs", "representation", "proposals", "sampled", "finest", "ipc"), _COUNTS),
    **dict.fromkeys(("min_size", "max_size", "size"), (*_COUNTS, "[]", "[32, 64]", '[32, "a"]', "[0]", "[1e9]")),
    **dict.fromkeys(("version", "format_version"), ("0", "1", "2", "3", "true", "1.0", '"1"', "1e9", "null", "-1")),
    **dict.fromkeys(("step", "epoch", "seconds"), ("-1", "0", "1", "3", "1e9", "2.0", '"2"', "true", "null", "1e30")),
    "bbox": (
        *("[true, false, 5, 5]", "[0, 0, 1e308, 1e308]", "[1, 1, NaN, 2]", '["1", "2", "3", "4"]', "[0, 0, 0, 0]"),
        *("[-5, -5, 10, 10]", "[0, 0, 24, 20, 1]", "[1, 2, 3]", f"[0, 0, {'9' * 400}, 1]", "[23.5, 0, 1.5, 5]", "null"),
        *("[0, 0, 24, 20]", "[0, 0, 25.04, 21.04]", "[0, 0, -4, 5]", "[0, 0, 1e-300, 1]", "[1e308, 1e308, 1e308, 1]"),
    ),
    "area": ("NaN", "-1", "0", '"40"', "1e308", "true", "9" * 400, "null", "[]", "Infinity"),
    "file_name": (
        *('"/etc/hostname"', '"../images/train0.png"', '"../../x.png"', '"train1.png"', '"TRAIN0.PNG"', '""', "null"),
        *(
            "5",
            '"train0"',
            '"."',
            '"~/x.png"',
            r'"train0.png\u0000"',
            '"./train0.png"',
            r'"a\\train0.png"',
            '"' + "x" * 5000 + '"',
        ),
    ),
    "name": ('"red"', '""', '" "', "null", "5", r'"\ud800"', '"green "', '"a,b"', r'"a\nb"', "[]", "true"),
    "view_size": (
        "[20000, 20000]",
        "[8, 8000000]",
        "[1e30, 1]",
        "[8.0, 8.0]",
        "[true, 8]",
        "[1, 1]",
        "[8]",
        "[100000, 1]",
    ),
    "mean": ("[1e308]", "[-1e30]", "[NaN]", "[0.5, 0.5]", '["0.5"]', "[true]", "1e30", "[1e308, 0, 0]", "[200, 1, 1]"),
    "std": ("[1e-300]", "[0]", "[-1]", "[1e308]", "[Infinity]", "1e-300", "[1e-300, 1, 1]", "[0, 1, 1]", "-1", "NaN"),
    "classes": (
        *('["cat", "cat", "bird"]', '["", "a", "b"]', '["red", "red"]', '["red", ""]', '[null, "a", "b"]', '"abc"'),
        *(
            '[["a"], "b", "c"]',
            '["cat", " cat", "bird"]',
            r'["\ud800", "a", "b"]',
            "[]",
            '{"a": 1, "b": 2}',
            "[1, 2, 3]",
        ),
    ),
    "coefficient_bits": ("40", "0", "4.0", "true", "8", "1e9", "-4", "null", '"4"', "1"),
    "settings": ("[]", "{}", "null", '"x"', "5", '{"method": []}', '{"method": "random"}', "[1, 2]"),
    "source": ('"digits"', '"/"', '"."', '""', "5", "null", '"numbers.npz/x"', '"coco:"', '"voc:squares"'),
    "root": ('"/"', "5", '"x"', "[]", "true"),
    "device": ('"cuda"', '"mps"', '"tpu"', "5", '"cpu:x"', '""'),
    "anchor": ("1e300", "NaN", "2", "-8", '"8"', "1e-9", "true", "4000"),
    "backbone": (
        *('"timm:hf-hub:no/such"', '"timm:hf_hub:no/such"', '"timm:local-dir:/tmp"', '"timm:../x"', '"resnet152"', "5"),
        *(
            '"timm:vit_giant_patch14_dinov2"',
            '"timm:"',
            '""',
            '"no_such"',
            '"timm:test_vit"',
            '"timm:test_resnet"',
            "null",
        ),
    ),
    "detector": ('"retinanet"', '"fcos"', '"x"', "5", "[]", '""'),
    "norm": ('"batch"', '"frozen"', '"x"', "5", "null", "[]"),
    "strides": ("[0, 16]", "[-8, 16]", "[8, 8]", '["8", 16]', "[1e9, 1]", "[8]", "[true, 16]", "8"),
    "identifiers": ("[]", '["0.png"]', "[0, 1, 2, 3]", '"abcd"', "null", '["", "", "", ""]'),
    "networks": (
        "{}",
        '{"a": {"mean": 1e30, "std": 0}}',
        '{"a": {}}',
        '{"a": {"mean": NaN, "std": NaN}}',
        "[]",
        '{"": 5}',
    ),
    **dict.fromkeys(
        ("images", "annotations", "categories", "scores"), ("[]", "{}", "null", "[[]]", "[null]", "5", "[5]")
    ),
    **dict.fromkeys(("bytes", "runs", "test_images"), ("-1", "1e300", "NaN", "true", '"5"', "null", "[]", "2.5")),
}
"""JSON texts that readers of a key may take for good."""


def json_text(content: Any, draw: random.Random) -> tuple[str, str]:
    """(a JSON value as text, damaged in one place or a few; what was done). The value itself is left alone."""
    tree = json.loads(json.dumps(content))
    raws: list[str] = []
    told = [_json_change(tree, raws, draw) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    text = json.dumps(tree)
    for place, raw in enumerate(raws):
        text = text.replace(json.dumps(MARK % place), raw)
    return text, "; ".join(told)


def _json_change(tree: Any, raws: list[str], draw: random.Random) -> str:
    places = list(_json_places(tree))
    if not places:
        return "nothing to change"
    hinted = [(holder, key) for holder, key in places if key in HINTS]
    if hinted and draw.random() < 0.4:
        wanted = draw.choice(sorted({key for _, key in hinted}))
        holder, key = draw.choice([place for place in hinted if place[1] == wanted])
        text = draw.choice(HINTS[key])
        raws.append(text)
        holder[key] = MARK % (len(raws) - 1)
        return f"{key!r} = {text[:40]}"
    holder, key = draw.choice(places)
    value = holder[key]
    change = draw.choice(("raw", "raw", "raw", "raw", "drop", "rename", "twice", "other", "number", "list", "text"))

    def raw(text: str) -> str:
        raws.append(text)
        return MARK % (len(raws) - 1)

    if change == "drop":
        del holder[key]
    elif change == "rename" and isinstance(holder, dict):
        holder[draw.choice((str(key) + "_", str(key).upper(), ""))] = holder.pop(key)
    elif change == "twice" and isinstance(holder, dict):
        text = draw.choice(RAW)
        holder[raw(json.dumps(key))] = raw(text)
        return f"{key!r} twice, the second time {text[:40]}"
    elif change == "other":
        other, its_key = draw.choice(places)
        if its_key in other if isinstance(other, dict) else its_key < len(other):
            holder[key] = json.loads(json.dumps(other[its_key]))
    elif change == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        choices = (-value, value + 1, value * 1000, value * 1e6, str(value), [value], float(value) / 7, value * 10**15)
        holder[key] = draw.choice(choices)
    elif change == "list" and isinstance(value, list):
        shuffled = draw.sample(value, len(value))
        holder[key] = draw.choice((value[:-1], value + value, value[::-1], shuffled, value[:1], [value], value * 100))
    elif change == "text" and isinstance(value, str):
        choices = (value[:-1], value + value, value + "\0", value.upper(), f" {value} ", "é" + value, f"../{value}")
        holder[key] = draw.choice(choices)
    else:
        text = draw.choice(RAW)
        holder[key] = raw(text)
        return f"{key!r} = {text[:40]}"
    return f"{change} {key!r}"


def _json_places(tree: Any) -> Any:
    """Every (container, key) of a tree."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        for key, value in items:
            yield holder, key
            if isinstance(value, dict | list):
                waiting.append(value)


def json_file(content: bytes, draw: random.Random) -> Mutation:
    """A JSON file with other values, keys or types."""
    if draw.random() < 0.05:
        raw = draw.choice(RAW)
        return Mutation(raw.encode(), f"the whole file is {raw[:40]}")
    text, told = json_text(json.loads(content), draw)
    return Mutation(text.encode(), told)


def json_lines(content: bytes, draw: random.Random) -> Mutation:
    """A log with one line changed, or its lines in disorder."""
    lines = content.splitlines()
    if draw.random() < 0.5:
        return text(content, draw)
    at = draw.randrange(len(lines))
    changed, told = json_text(json.loads(lines[at]), draw)
    lines[at] = changed.encode()
    return Mutation(b"\n".join(lines) + b"\n", f"line {at + 1}: {told}")
