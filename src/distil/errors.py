"""The one exception that a user of distil has to know."""


class DistilError(Exception):
    """Something the user can mend: the message names the value, what was expected, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
