"""Damage to files: bytes of any file, and the structure of JSON, XML, text, safetensors, npz and pictures.

`mutate(name, content, draw)` changes one file once or a few times. All that happens is decided by `draw`, so that an
address (target, seed, number) names one mutation for good. Nothing here knows what a reader should make of it.
"""

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from distil.files import CHECKSUM, checksum


@dataclass(frozen=True)
class Mutation:
    """content: of the file now; None where it is gone. what: was done, in words.

    sealed: the file still carries the checksum of before, so that a reader accepts it only if it holds the same.
    """

    content: bytes | None
    what: str
    sealed: bool = False


def mutate(name: str, content: bytes, draw: random.Random) -> Mutation:
    """One file, damaged. name: its suffix decides which structure it has."""
    suffix = Path(name).suffix.lower()
    chance = draw.random()
    if chance < 0.02:
        return Mutation(draw.choice((None, b"")), "removed or emptied")
    structured = STRUCTURED.get(suffix, text)
    if chance < 0.35:
        if suffix == ".safetensors" and draw.random() < 0.4:
            bare = unsealed(content)
            return replace(damaged(bare, draw), sealed=False)
        return replace(damaged(content, draw), sealed=suffix == ".safetensors" and CHECKSUM.encode() in content)
    found = structured(content, draw)
    if found.content is not None and draw.random() < 0.1:
        more = damaged(found.content, draw)
        return Mutation(more.content, f"{found.what}; {more.what}", found.sealed)
    return found


def damaged(content: bytes, draw: random.Random) -> Mutation:
    """Bits, bytes and pieces changed, without regard to what they mean."""
    data, told = bytearray(content), []
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3, 5))):
        if not data:
            break
        at = draw.randrange(len(data))
        length = min(len(data) - at, draw.choice((1, 1, 2, 4, 8, 32, 256)))
        piece = bytes(data[at : at + length])
        change = draw.choice(
            ("flip", "flip", "flip", "set", "delete", "insert", "repeat", "zero", "cut", "swap", "grow")
        )
        if change == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif change == "set":
            data[at : at + length] = draw.randbytes(length)
        elif change == "delete":
            del data[at : at + length]
        elif change == "insert":
            data[at:at] = draw.randbytes(length)
        elif change == "repeat":
            data[at:at] = piece * draw.choice((1, 2, 50))
        elif change == "zero":
            data[at : at + length] = bytes(length)
        elif change == "cut":
            del data[at:]
        elif change == "swap":
            data = data[at:] + data[:at]
        else:
            data += draw.choice((piece * 100, b"\0" * 1000, bytes(data)))
        told.append(f"{change} {length} at {at}")
    return Mutation(bytes(data), ", ".join(told))


# JSON: a mutated tree may hold what json.dumps cannot write, as marks that are replaced in its text.

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


# Text, YAML and XML

WORDS = (
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"-1",
        b"0",
        b"1e308",
        b"1e309",
        b"-0.5",
        b"1.5",
        b"9" * 400,
        b"0x10",
        b"1_000",
        b"true",
    ),
    *(b"", b"~", b"null", b"None", b"\xff\xfe", b"\x00", b"\xe2\x80\xa8", b"\xc2\x85", b"\xef\xbb\xbf", b"\x1b[2J"),
    *("é".encode(), "é".encode(), "٣".encode(), b"../..", b"/etc/passwd", b"x" * 100_000, b"a b c", b"#", b"'", b'"'),
    *(b"!!python/object/apply:os.getcwd []", b"&a [*a, *a]", b"*a", b"- - - -", b"{a: [", b"? x", b"%TAG", b"1.0.0"),
    *(b"0 0.5 0.5 0.2 0.2", b"0 0.1 0.1 0.9 0.1 0.9 0.9", b"names:", b"train: .", b"kpt_shape: [1, 3]", b"\t", b": :"),
)
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
)


def text(content: bytes, draw: random.Random) -> Mutation:
    """Lines and words of a text file changed."""
    lines, told = content.split(b"\n"), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(len(lines))
        change = draw.choice(
            ("word", "word", "word", "line", "drop", "twice", "swap", "insert", "ends", "indent", "bomb")
        )
        if change == "word":
            words = lines[at].split(b" ")
            place, word = draw.randrange(len(words)), draw.choice(WORDS)
            words[place] = draw.choice((word, word, word + words[place], words[place] + word))
            lines[at] = b" ".join(words)
            told.append(f"word {place} of line {at + 1} with {word[:20]!r}")
            continue
        if change == "line":
            lines[at] = draw.choice(WORDS)
        elif change == "drop" and len(lines) > 1:
            del lines[at]
        elif change == "twice":
            lines.insert(at, lines[at])
        elif change == "swap":
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif change == "insert":
            lines.insert(at, draw.choice(WORDS))
        elif change == "ends":
            lines = [line + b"\r" for line in lines]
        elif change == "indent":
            lines[at] = draw.choice((b"  ", b"\t", b"- ")) + lines[at]
        elif change == "bomb":
            lines = draw.choice(((BOMB + content).split(b"\n"), lines * 200))
        told.append(f"{change} line {at + 1}")
    return Mutation(b"\n".join(lines), ", ".join(told))


LAUGHS = b'<!DOCTYPE a [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + i, (b"&%c;" % (97 + i)) * 10) for i in range(12)
)
_CORNERS = (
    b"nan",
    b"1e308",
    b"-5",
    b"2.5",
    b"",
    b"0",
    b"25",
    b"24",
    b"inf",
    b"1",
    b" 8 ",
    b"8,0",
    b"<b>1</b>",
    b"9" * 400,
)
TEXTS: dict[bytes, tuple[bytes, ...]] = {
    b"difficult": (
        b"no",
        b"False",
        b"Unspecified",
        b"yes",
        b"true",
        b"1.0",
        b" 1 ",
        b"",
        b"<![CDATA[1]]>",
        b"-3",
        b"0",
        b"1",
    ),
    **dict.fromkeys((b"xmin", b"ymin", b"xmax", b"ymax"), _CORNERS),
    **dict.fromkeys((b"width", b"height"), (b"0", b"nan", b"inf", b"24.5", b"1e308", b"-24", b"20", b"", b"100000000")),
    b"name": (b"", b"red ", b"blue", b"<b>x</b>", b"\n red\n", b"r&amp;d", b"&#x7f;", b"green"),
    b"filename": (b"two.png", b"/etc/hostname", b"../JPEGImages/one.png", b"", b"one"),
}
"""Texts that readers of a tag may take for good."""
LEAF = re.compile(rb"<(\w+)>([^<]*)</\1>")


def xml(content: bytes, draw: random.Random) -> Mutation:
    """An XML file with other tags, texts or entities."""
    change = draw.choice((*["leaf"] * 8, "drop", "twice", "rename", "root", "entity", "deep", "coded"))
    leaves = list(LEAF.finditer(content))
    tags = sorted({leaf.group(1) for leaf in leaves})
    tag = draw.choice((*tags, *(tag for tag in tags if tag in TEXTS)))
    leaf = draw.choice([leaf for leaf in leaves if leaf.group(1) == tag])
    if change == "root":
        root = draw.choice((b"html", b"Annotation", b"annotations", b"x"))
        return Mutation(content.replace(b"annotation>", root + b">"), f"the root is <{root.decode()}>")
    if change == "entity":
        inside = draw.choice((b"&m;", b"&xxe;", b"&undefined;", b"&#0;", b"&#x110000;"))
        head = LAUGHS + b'<!ENTITY xxe SYSTEM "file:///etc/passwd">]>'
        return Mutation(head + content[: leaf.start(2)] + inside + content[leaf.end(2) :], f"entity {inside.decode()}")
    if change == "deep":
        depth = draw.choice((100, 5000, 200_000))
        return Mutation(content.replace(b"<object>", b"<object>" + b"<a>" * depth + b"</a>" * depth, 1), "deep tags")
    if change == "coded":
        head = draw.choice((b"utf-16", b"latin-1", b"no-such-code", b"utf-7", b"idna"))
        return Mutation(b'<?xml version="1.0" encoding="%s"?>' % head + content, f"encoding {head.decode()}")
    whole = leaf.group(0)
    if change == "drop":
        new = b""
    elif change == "twice":
        new = whole + b"<%s>%s</%s>" % (tag, draw.choice(WORDS), tag)
    elif change == "rename":
        new = b"<%s>%s</%s>" % (tag.upper(), leaf.group(2), tag.upper())
    else:
        words = draw.choice((TEXTS.get(tag, WORDS), TEXTS.get(tag, WORDS), WORDS))
        new = b"<%s>%s</%s>" % (tag, draw.choice(words), tag)
    return Mutation(content[: leaf.start()] + new + content[leaf.end() :], f"{change} <{tag.decode()}>: {new[:60]!r}")


# safetensors


def tensors_of(content: bytes) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file, and the text of its metadata entry "distil" ("" if there is none)."""
    length = struct.unpack("<Q", content[:8])[0]
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return safetensors.torch.load(content), metadata.get("distil", "")


def tensor_file(tensors: dict[str, Tensor], header: str | None, key: str = "distil") -> bytes:
    """A safetensors file with the header as it stands."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(tensors, metadata=None if header is None else {key: header})


def sealed_text(tensors: dict[str, Tensor], header: str) -> str:
    """A header with the checksum of these tensors, so that checks behind the checksum are reached; where a header has
    none (it is no object, or holds NaN) it is returned as it is."""
    try:
        parsed = json.loads(header)
        mark = checksum(tensors, parsed)
    except (ValueError, RecursionError, TypeError, UnicodeError):
        return header
    if not isinstance(parsed, dict):
        return header
    inner = header.strip()[1:-1].strip()
    return f'{{{inner}{", " if inner else ""}"checksum": "{mark}"}}'


def unsealed(content: bytes) -> bytes:
    """A file as version 0.1 wrote it, without a checksum."""
    tensors, header = tensors_of(content)
    return tensor_file(tensors, json.dumps(_without_checksum(header), sort_keys=True)) if header else content


def _without_checksum(header: str) -> Any:
    parsed = json.loads(header)
    return {name: value for name, value in parsed.items() if name != "checksum"}


def tensors(content: bytes, draw: random.Random) -> Mutation:
    """A safetensors file with other numbers or another header, under a checksum that is right for them, or none."""
    held, header = tensors_of(content)
    change = draw.choice(("header", "header", "header", "tensor", "tensor", "tensor", "metadata", "container"))
    if change == "container":
        length = struct.unpack("<Q", content[:8])[0]
        inner, told = json_text(json.loads(content[8 : 8 + length]), draw)
        size = draw.choice((None, None, None, 0, 2**63 - 1, 2**64 - 1, 100_000_001))
        coded = inner.encode()
        start = struct.pack("<Q", len(coded) if size is None else size)
        return Mutation(start + coded + content[8 + length :], f"container: {told}, length {size or 'right'}")
    if not header:
        change = "tensor"
    if change == "metadata":
        raw = draw.choice((*RAW, "", "{", "not json", '{"a": 1, "a": 2}', None))
        key = draw.choice(("distil", "distil", "Distil", "format"))
        return Mutation(tensor_file(held, raw, key), f"metadata {key} = {str(raw)[:40]}")
    plain = json.dumps(_without_checksum(header)) if header else None
    if change == "tensor" and held:
        told = "; ".join(_tensor_change(held, draw) for _ in range(draw.choice((1, 1, 1, 2))))
    else:
        plain, told = json_text(_without_checksum(header), draw)
    seal = draw.random() < 0.6
    if plain is not None and seal:
        plain = sealed_text(held, plain)
    return Mutation(tensor_file(held, plain), f"{told} ({'with' if seal else 'without'} a checksum)")


KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.uint8),
    *(torch.int8, torch.bool),
)
VALUES = (float("nan"), float("inf"), float("-inf"), 1e30, -1e30, -1.0, 0.0, 1.0, 2.0, 255.0, 1e-40, 5e4)


def _tensor_change(held: dict[str, Tensor], draw: random.Random) -> str:
    if not held:
        return "no tensor is left"
    name = draw.choice(sorted(held))
    x = held[name]
    change = draw.choice(("value", "value", "value", "all", "kind", "shape", "drop", "rename", "swap", "extra", "rows"))
    if change in ("value", "all") and x.numel():
        value = draw.choice(VALUES)
        x = x.clone()
        flat = x.view(-1)
        if not x.is_floating_point():
            value = draw.choice((-1, 0, 1, 2, 100, 127))
            value = value % 2 if x.dtype == torch.bool else abs(value) if x.dtype == torch.uint8 else value
        if change == "all":
            flat[:] = value
        else:
            flat[draw.randrange(len(flat))] = value
        held[name] = x
        return f"{change} of {name} = {value}"
    if change == "kind":
        kind = draw.choice(KINDS)
        held[name] = x.to(kind)
        return f"{name} is {kind}"
    if change == "shape":
        held[name] = draw.choice((x.reshape(-1), x[None], x[..., None], x.reshape(-1).flip(0).reshape(x.shape)))
        if x.ndim > 1 and draw.random() < 0.3:
            held[name] = x.transpose(0, -1)
        return f"{name} has shape {list(held[name].shape)}"
    if change == "rows" and x.ndim:
        held[name] = draw.choice((x[:0], x[:1], x[:-1], torch.cat([x, x]), x.flip(0)))
        return f"{name} has shape {list(held[name].shape)}"
    if change == "rename":
        held[draw.choice((name + "_", name.upper(), "x", ""))] = held.pop(name)
    elif change == "swap":
        other = draw.choice(sorted(held))
        held[name], held[other] = held[other], held[name]
        return f"{name} and {other} change places"
    elif change == "extra":
        held[draw.choice(("extra", "canvases2", "kept", "spans", "utilisation", "weight.0", "module.x"))] = torch.ones(
            2
        )
    else:
        del held[name]
    return f"{change} {name}"


# npz


def archive(content: bytes, draw: random.Random) -> Mutation:
    """An npz with other arrays, or a zip that tells of other sizes than it holds."""
    with np.load(io.BytesIO(content)) as loaded:
        arrays: dict[str, np.ndarray] = {name: loaded[name] for name in loaded.files}
    if draw.random() < 0.3:
        return _zip(arrays, draw)
    told = "; ".join(_array_change(arrays, draw) for _ in range(draw.choice((1, 1, 1, 2))))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return Mutation(buffer.getvalue(), told)


ARRAY_KINDS = ("b1", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">i4", "c8", "U3", "S3", "O", "M8[s]")


def _array_change(arrays: dict[str, np.ndarray], draw: random.Random) -> str:
    name = draw.choice(sorted(arrays))
    x = arrays[name]
    change = draw.choice(("kind", "kind", "kind", "value", "value", "shape", "rows", "drop", "rename", "swap", "extra"))
    if change == "kind":
        kind = draw.choice(ARRAY_KINDS)
        try:
            arrays[name] = x.astype(kind)
        except (ValueError, TypeError, OverflowError):
            arrays[name] = np.zeros(x.shape, kind)
        return f"{name} is {kind}"
    if change == "value" and x.size:
        kind = draw.choice(("f4", "f8", "i8", "i4", "u2", "f2", "U9"))
        value = draw.choice((float("nan"), float("inf"), -1.0, 2.0, 6e4, 1e38, 1e-30))
        if kind == "U9" or x.dtype.kind == "U":
            x = x.astype("U9")
            x.reshape(-1)[draw.randrange(x.size)] = draw.choice(("", " ", "a", "\ud800", "\0", "nan"))
        else:
            x = (x / 255 if kind[0] == "f" and draw.random() < 0.5 else x).astype(kind)
            if kind[0] != "f":
                value = draw.choice((-1, 0, 1, 300, 4095, 2**15))
            x.reshape(-1)[draw.randrange(x.size)] = value if kind != "u2" else abs(int(value))
        arrays[name] = x
        return f"{name} as {kind} with {value}"
    if change == "shape":
        with_axis = (x.reshape(-1), x[None], x[..., None], np.stack([x, x], -1), np.stack([x] * 3, -1), x.T)
        arrays[name] = draw.choice(with_axis)
        return f"{name} has shape {arrays[name].shape}"
    if change == "rows" and x.ndim:
        arrays[name] = draw.choice((x[:0], x[:1], x[:-1], np.concatenate([x, x]), x[::-1]))
        return f"{name} has shape {arrays[name].shape}"
    if change == "rename":
        new = draw.choice(
            ("x_val", "y_val", "x_train", "train_images", "X_train", "y", "../x", "arr_0", "allow_pickle")
        )
        arrays[new if new != "allow_pickle" else "a"] = arrays.pop(name)
        return f"{name} is called {new}"
    if change == "swap":
        other = draw.choice(sorted(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
        return f"{name} and {other} change places"
    if change == "extra":
        arrays[draw.choice(("classes", "x_val", "mean", "z"))] = draw.choice((x, x[:1], np.array(["a", "b", "a"])))
    else:
        del arrays[name]
    return f"{change} {name}"


def _zip(arrays: dict[str, np.ndarray], draw: random.Random) -> Mutation:
    """A zip of which one array's own header, or one zip entry, lies."""
    victim = draw.choice(sorted(arrays))
    change = draw.choice(("shape", "shape", "shape", "version", "cut", "folder", "twice", "text"))
    told = f"{change} of {victim}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            data = one.getvalue()
            if name == victim:
                if change == "shape":
                    shape = draw.choice(
                        (b"(3000000000,)", b"(-1, 4)", b"(1e3,)", b"(10**9,)", b"()", b"(60000, 60000)")
                    )
                    data = re.sub(rb"'shape': \([^)]*\)", b"'shape': " + shape, data)
                    told += f": {shape.decode()}"
                elif change == "version":
                    data = data[:6] + draw.choice((b"\x02\x00", b"\x09\x00", b"\xff\xff")) + data[8:]
                elif change == "cut":
                    data = data[: draw.randrange(len(data))]
                elif change == "text":
                    data = draw.choice((b"", b"hello", data[6:]))
            entry = f"{name}.npy" if not (change == "folder" and name == victim) else f"../{name}.npy"
            file.writestr(entry, data)
            if change == "twice" and name == victim:
                file.writestr(f"{name}.npy/", b"") if draw.random() < 0.5 else file.writestr(f"{name}", data)
    return Mutation(buffer.getvalue(), told)


# Pictures


def picture(content: bytes, draw: random.Random) -> Mutation:
    """The picture in another mode or format, with odd EXIF, or with a header that tells of another size."""
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    change = draw.choice(("mode", "mode", "mode", "exif", "exif", "size", "claim", "claim", "chunk"))
    if change == "mode":
        mode, kind = draw.choice(MODES)
        return Mutation(_saved(_in_mode(image, mode), kind), f"mode {mode} as {kind}")
    if change == "exif":
        exif = Image.Exif()
        turn = draw.choice((0, 1, 3, 6, 8, 9, 65535))
        exif[0x0112] = turn
        data = exif.tobytes()
        if draw.random() < 0.5:
            data = b"Exif\0\0" + (damaged(data[6:], draw).content or b"")
        kind = draw.choice(("JPEG", "PNG", "WEBP"))
        return Mutation(_saved(image, kind, exif=data), f"{kind} with EXIF orientation {turn}")
    if change == "size":
        size = draw.choice(((1, 1), (1, 500), (500, 1), (7, 9), (300, 200)))
        return Mutation(_saved(image.resize(size), draw.choice(("PNG", "JPEG"))), f"{size[0]} x {size[1]} pixels")
    data = _saved(image, "PNG")
    if change == "claim":
        sides = draw.choice(((60_000, 60_000), (2**31 - 1, 1), (13_000, 13_000), (0, 8), (8, 0), (20_000, 4_000)))
        head = struct.pack(">II", *sides) + data[24:29]
        crc = struct.pack(">I", zlib.crc32(b"IHDR" + head))
        return Mutation(data[:16] + head + crc + data[33:], f"a PNG that claims {sides[0]} x {sides[1]}")
    kind, size = draw.choice((b"IDAT", b"PLTE", b"tRNS", b"iTXt", b"zTXt", b"iCCP", b"acTL")), draw.choice((0, 3, 1000))
    payload = draw.randbytes(size)
    crc = struct.pack(">I", zlib.crc32(kind + payload))
    return Mutation(data[:33] + struct.pack(">I", size) + kind + payload + crc + data[33:], f"a chunk {kind.decode()}")


MODES = (
    *(("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("P", "GIF")),
    *(
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("RGB", "WEBP"),
        ("RGB", "PPM"),
        ("RGB", "TGA"),
    ),
    *(
        ("I", "TIFF"),
        ("F", "TIFF"),
        ("I;16", "TIFF"),
        ("CMYK", "TIFF"),
        ("LAB", "TIFF"),
        ("RGBA", "TIFF"),
        ("1", "TIFF"),
    ),
    *(("YCbCr", "JPEG"), ("NaN", "TIFF"), ("RGB", "EPS"), ("RGB", "ICO"), ("RGB", "PDF")),
)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(image.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 16)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32))
    if mode in ("F", "NaN"):
        values = grey.astype(np.float32) / 255
        values[0, 0] = np.nan if mode == "NaN" else 1.0
        return Image.fromarray(values)
    if mode == "LAB":
        from PIL import ImageCms

        lab = ImageCms.createProfile("LAB")
        changed = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
        assert changed is not None
        return changed
    return image.convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


STRUCTURED: dict[str, Callable[[bytes, random.Random], Mutation]] = {
    ".json": json_file,
    ".jsonl": json_lines,
    ".xml": xml,
    ".safetensors": tensors,
    ".npz": archive,
    **dict.fromkeys((".png", ".jpg", ".tif", ".gif"), picture),
}


def chosen(names: Sequence[str], draw: random.Random) -> str:
    """Which of several files is damaged."""
    return draw.choice(sorted(names))
