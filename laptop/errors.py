"""The one error of a laptop's commands."""


class LocalError(Exception):
    """The laptop cannot do what was asked; the text is one sentence for the person at the keyboard."""
