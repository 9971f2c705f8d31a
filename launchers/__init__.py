"""Starts the processes that a run consists of."""
