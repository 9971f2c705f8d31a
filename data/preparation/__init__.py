"""The parts of `python -m data.prepare --source`: its folder, a look at the videos, the report."""
