"""The one exception that a user of distil has to know."""

from collections.abc import Callable

LONGEST = 1200
"""Characters of a message that are shown: a damaged file may hold a name of a hundred thousand."""


class DistilError(Exception):
    """Something the user can mend: the message names the value, what was expected, and what to do.

    field: name of the setting or argument that is to be mended, or several. Where the message says "{name}", Python
    callers read the name, and users of the command line its flag.
    Of a message longer than LONGEST the middle is left out. The command line prints the message without a traceback and
    exits with status 2.
    """

    def __init__(self, message: object = "", *, field: str | tuple[str, ...] = ()):
        self.fields = (field,) if isinstance(field, str) else tuple(field)
        self.template = str(message)
        super().__init__(self.told(lambda name: name))

    def told(self, as_flag: Callable[[str], str]) -> str:
        """The message with every field called as `as_flag` calls it."""
        text = self.template
        for name in self.fields:
            text = text.replace(f"{{{name}}}", as_flag(name))
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
