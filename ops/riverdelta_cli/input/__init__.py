"""Reads what is pushed: files, pipes, raw chunks."""
