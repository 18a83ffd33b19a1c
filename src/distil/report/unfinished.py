"""Networks that an evaluation has finished, kept until all are: the same evaluation continues from them."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from distil.errors import DistilError
from distil.files import read_json, write_atomic

FORMAT_VERSION = 1
"""Version of the file; another one is not read."""


class Unfinished:
    """Accuracies by (network, run), in a small file beside the score file for as long as the evaluation is not over.

    out: the score file. decides: all that an accuracy depends on, network and run aside, as JSON can hold it. The
    file's name has its hash, so that evaluations that differ do not meet. A file that is damaged counts as none.
    """

    def __init__(self, out: Path, decides: dict[str, Any]):
        self.decides = json.loads(json.dumps(decides))
        out = out.absolute()
        self.path = out.with_name(f"{out.name}.{_hash(self.decides)[:12]}.unfinished")
        self.accuracies: dict[tuple[str, int], float] = {}
        with contextlib.suppress(OSError, DistilError, KeyError, TypeError, ValueError):
            self.accuracies = _read(self.path, self.decides)

    def add(self, network: str, run: int, accuracy: float) -> None:
        """Keep one more. A folder that cannot be written is no reason to stop: the score file will tell."""
        self.accuracies[network, run] = accuracy
        rows = [[name, number, value] for (name, number), value in sorted(self.accuracies.items())]
        content = {"format_version": FORMAT_VERSION, "decides": self.decides, "accuracies": rows}
        text = json.dumps({**content, "checksum": _hash(content)}, indent=1) + "\n"
        with contextlib.suppress(DistilError):
            write_atomic(self.path, lambda temporary: temporary.write_text(text))

    def remove(self) -> None:
        """The evaluation is over."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _read(path: Path, decides: dict[str, Any]) -> dict[tuple[str, int], float]:
    content = read_json(path)
    checksum = content.pop("checksum")
    if checksum != _hash(content) or content["format_version"] != FORMAT_VERSION or content["decides"] != decides:
        return {}
    return {(str(name), int(run)): float(value) for name, run, value in content["accuracies"]}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
