"""Streams of samples that have ids but no index: which to keep, and how to record their scores."""
