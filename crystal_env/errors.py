"""Errors of user input: commands show them in one line, any other error keeps its traceback."""


class InputError(ValueError):
    """Invalid user input: the message names the argument or file, the value given and what is allowed."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder does not exist."""


class MissingPackageError(InputError, ImportError):
    """An optional package is not installed: the message names the extra to install."""
