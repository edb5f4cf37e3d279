"""Chat backends: who writes the replies. `base` says what one is."""
