"""Errors that are the user's to mend: commands show them in one line, any other error keeps its traceback."""


class InputError(ValueError):
    """What a user gave cannot be used: the message names the argument or file, what came and what is allowed."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder that a user named does not exist."""


class MissingPackageError(InputError, ImportError):
    """A package that an option needs is not installed: the message names the extra that brings it."""
