"""The arrays of an npz archive, read only after their headers have been believed."""

import io
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.lib import format as npy

from distil.errors import DistilError

HEADER_BYTES = 1 << 16
"""The header of a plain array is far shorter."""

HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHeader:
    """What an array says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def count(self) -> int:
        """Numbers in the array."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


def read_header(archive: np.lib.npyio.NpzFile, name: str, where: str) -> ArrayHeader:
    """The header of one array of an archive; where: its file, for messages.

    Raises: DistilError if it cannot be read, is of an object array, or claims another size than the array has.
    """
    members = archive.zip
    if members is None:
        raise ValueError("the archive is closed")
    try:
        member = members.getinfo(f"{name}.npy")
        with members.open(member) as file:
            start = io.BytesIO(file.read(HEADER_BYTES))
        version = npy.read_magic(start)
        if version not in HEADER_READERS:
            raise ValueError(f"its format is {version[0]}.{version[1]}, not 1.0 or 2.0")
        shape, _, dtype = HEADER_READERS[version](start)
    except MemoryError:
        raise
    except KeyError as error:
        raise DistilError(f"{where} is corrupt at {name}: it is not an array. Copy or write it again.") from error
    except Exception as error:  # zip, zlib and header errors share no base class
        raise _corrupt(where, name, str(error)) from error
    header = ArrayHeader(shape, dtype)
    if dtype.hasobject:
        raise DistilError(
            f"{where}: {name} is an object array, which only pickle can read, and distil reads no pickles: "
            "store numbers (images of one size; strings as dtype 'U')."
        )
    stored = member.file_size - start.tell()
    if header.bytes != stored:
        raise _corrupt(where, name, f"shape {shape} of {dtype} takes {header.bytes:,} bytes, but {stored:,} are there")
    return header


def read_array(archive: np.lib.npyio.NpzFile, name: str, where: str) -> np.ndarray:
    """One array, after its header. Raises: DistilError as `read_header` does, or if its content is damaged."""
    read_header(archive, name, where)
    try:
        return archive[name]
    except MemoryError:
        raise
    except Exception as error:
        raise _corrupt(where, name, str(error)) from error


def _corrupt(where: str, name: str, reason: str) -> DistilError:
    return DistilError(f"{where} is corrupt at {name}: {reason}. Copy or write it again.")
