"""The one exception for a user's mistake."""


class InputError(ValueError):
    """Something the caller gave is wrong: a file, a record, a name, a size.

    The message is one sentence for a person: it names the file, record and field, and says what to do.
    The command line prints it and exits with 2; every other exception is a bug of ours and keeps its traceback.
    """
