"""The command line `difficulty-prune`."""
