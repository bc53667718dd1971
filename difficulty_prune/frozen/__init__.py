"""Passes of a frozen model over the data."""
