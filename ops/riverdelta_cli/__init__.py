"""The riverdelta command: server, workers and readers put together."""
