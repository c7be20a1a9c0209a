"""The one exception that reaches a user: what was found, what was expected, what to do."""


class BoneageError(ValueError):
    """Bad input or a refused operation, explained in one line.

    The command line prints it without a traceback and exits with code 2.
    """
