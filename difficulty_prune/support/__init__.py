"""What every room stands on, and what knows nothing of scores."""
