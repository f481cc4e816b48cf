"""The one exception that a user is meant to see."""


class SpadeError(Exception):
    """A mistake that the user can mend; its text is one line that says what and how.

    Parameters are in backticks, by their names in Python; a face may render them as its own.
    """
