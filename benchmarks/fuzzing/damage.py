"""Damage to a file of any kind.

All that happens is decided by the generator that is passed on, so that an address (target, seed, number) names one
mutation for good. Nothing here knows what a reader should make of it.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from distil.files import CHECKSUM

from .array_damage import archive
from .json_damage import json_file, json_lines
from .mutation import Mutation, damaged
from .picture_damage import picture
from .tensor_damage import tensors, unsealed
from .text_damage import text, xml

STRUCTURED: dict[str, Callable[[bytes, random.Random], Mutation]] = {
    ".json": json_file,
    ".jsonl": json_lines,
    ".xml": xml,
    ".safetensors": tensors,
    ".npz": archive,
    **dict.fromkeys((".png", ".jpg", ".tif", ".gif"), picture),
}
"""By suffix; every other file is text."""


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
    try:
        found = structured(content, draw)
    except Exception:  # changes that exclude one another, such as text as numbers
        return damaged(content, draw)
    if found.content is not None and draw.random() < 0.1:
        more = damaged(found.content, draw)
        return Mutation(more.content, f"{found.what}; {more.what}", found.sealed)
    return found
