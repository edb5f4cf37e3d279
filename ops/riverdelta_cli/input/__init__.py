"""Read the input of a push: files, pipes, raw chunks."""
