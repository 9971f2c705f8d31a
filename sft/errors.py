"""What ends a supervised run with a reason; without torch, so that an entry point knows it from its start."""


class TooManyUnreadableError(RuntimeError):
    """More rows were skipped than the config allows; the message says how many, and why."""


class NonFiniteLoss(RuntimeError):
    """A loss of a step or of the validation is NaN or infinite; no checkpoint is written after it."""
