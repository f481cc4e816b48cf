"""The one exception that a user is meant to see."""


class SpadeError(Exception):
    """A mistake that the user can mend; its text is one line that says what and how."""
