"""One line of what is worth knowing before a training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from distil.errors import DistilError

Verdict = Literal["good", "look", "stop"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and whether a training makes sense with it."""

    what: str
    found: str
    verdict: Verdict = "good"
    remedy: str = ""
    """What to do about it; empty where all is well."""
    fields: tuple[str, ...] = ()
    """Settings that `found` and `remedy` refer to, as "{lr}" (see `DistilError`)."""

    def told(self, as_flag: Callable[[str], str] = str) -> tuple[str, str]:
        """What was found, and the remedy, with settings as `as_flag` writes them."""
        found, remedy = (DistilError(text, field=self.fields).told(as_flag) for text in (self.found, self.remedy))
        return found, remedy

    def sentence(self, as_flag: Callable[[str], str] = str) -> str:
        """All of it in one line."""
        found, remedy = self.told(as_flag)
        return f"{self.what}: {found}. {remedy}".strip()
