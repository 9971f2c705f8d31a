"""Launchers and one-off tools; nothing imports them."""
