"""Paths as users write them."""

import os
from pathlib import Path

from distil.errors import DistilError


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~USER replaced by that home folder.

    Raises: DistilError if the system knows no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DistilError(
            f"{path}: there is no home folder for {Path(path).parts[0]}. Write the path in full, "
            "or put ./ before a name that begins with ~."
        ) from error


def shown(path: str | os.PathLike[str]) -> str:
    """A path or another text as it can be printed: what is no UTF-8 becomes escapes."""
    return str(path).encode(errors="backslashreplace").decode()
