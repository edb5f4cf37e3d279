"""All access to Redis: for producers, workers and readers."""
