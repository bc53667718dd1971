"""Training runs: their scores in memory and on disk, and sets of them."""
