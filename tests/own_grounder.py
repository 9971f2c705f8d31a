"""A grounder that is not among ours."""

from model.interleaved_grounder import InterleavedGrounder


class Mine(InterleavedGrounder):
    """The same under another name."""
