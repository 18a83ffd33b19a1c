"""Damage to text, YAML and XML: other lines, words, tags and entities."""

import random
import re

from .mutation import Mutation

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
            lines = draw.choice(((BOMB + content).split(b"\n"), lines * 200 if len(lines) < 1000 else lines))
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
