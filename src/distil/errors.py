"""The one exception that a user of distil has to know."""

import re
from collections.abc import Callable

LONGEST = 1200
"""Characters of a message that are shown: a damaged file may hold a name of a hundred thousand."""


class DistilError(Exception):
    """Something the user can mend: the message names the value, what was expected, and what to do.

    field: name of the setting or argument that is to be mended, or several. The message refers to it as "{size}", or
    with a value as "{size=64}": Python callers read size and size=64, users of the command line --size and --size 64.
    Of a message longer than LONGEST the middle is left out. The command line prints the message without a traceback and
    exits with status 2.
    """

    def __init__(self, message: object = "", *, field: str | tuple[str, ...] = ()):
        self.fields = (field,) if isinstance(field, str) else tuple(field)
        self.template = str(message)
        super().__init__(self.told(lambda reference: reference))

    def told(self, as_flag: Callable[[str], str]) -> str:
        """The message with every reference to a field, "size" or "size=64", written as `as_flag` writes it."""
        text = self.template
        value = r"(?:=(?:[^{}]|\{[^{}]*\})*)?"  # may hold {...} itself, as a path can
        for name in self.fields:
            text = re.sub(rf"\{{({re.escape(name)}{value})\}}", lambda found: as_flag(found[1]), text)
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"

    def within(self, before: str = "", after: str = "", *, field: str | tuple[str, ...] = ()) -> "DistilError":
        """The same error with words before and after its message; the fields of both are references.

        Of an error in a file, whose fields are no arguments of the caller, use the text, str(error).
        """
        more = (field,) if isinstance(field, str) else tuple(field)
        return DistilError(f"{before}{self.template}{after}", field=(*self.fields, *more))
