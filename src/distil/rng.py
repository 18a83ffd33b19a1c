"""Addressed randomness: a generator is made from (seed, address), never handed on.

A resumed run therefore draws what an uninterrupted one would have drawn, without saving generator states, and
one component's draws never shift another's.
"""

import hashlib

import torch


def seed_at(seed: int, *address: str | int) -> int:
    """A 63-bit seed that depends on every part of the address.

    seed: the run's seed.
    address: names and counters, as in ``seed_at(0, "real", outer, inner, "cat")``. ``1`` and ``"1"`` differ.
    """
    digest = hashlib.blake2b(repr((int(seed), *address)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(seed: int, *address: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one address: equal addresses give equal draws on the same kind of device."""
    return torch.Generator(device=device).manual_seed(seed_at(seed, *address))
