"""Damage to safetensors files: other tensors and headers, with a checksum that is right for them, or none."""

import json
import random
import struct
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from distil.files import checksum

from .json_damage import RAW, json_text
from .mutation import Mutation


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
