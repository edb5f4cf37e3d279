"""Background loops of a worker process, one per file."""
