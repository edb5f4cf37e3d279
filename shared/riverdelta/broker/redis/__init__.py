"""A connection to Redis: commands, scripts, pub/sub, clusters. Knows nothing of chats."""
