"""The one exception that a user of distil has to know."""

LONGEST = 1200
"""Characters of a message that are shown: a damaged file may hold a name of a hundred thousand."""


class DistilError(Exception):
    """Something the user can mend: the message names the value, what was expected, and what to do.

    Of a message longer than LONGEST the middle is left out. The command line prints the message without a traceback and
    exits with status 2.
    """

    def __init__(self, message: object = ""):
        text = str(message)
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        super().__init__(text)
