"""Everything that speaks to Redis on behalf of producers, workers and readers."""
