"""A damaged file, and damage to bytes without regard to what they mean."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """content: of the file now; None where it is gone. what: was done, in words.

    sealed: the file still carries the checksum of before, so that a reader accepts it only if it holds the same.
    """

    content: bytes | None
    what: str
    sealed: bool = False


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
