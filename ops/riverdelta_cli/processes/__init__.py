"""Starts and supervises servers and child processes."""
