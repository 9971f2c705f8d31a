"""Supervised multi-task training."""
