"""How chats are read: `Subscriber` and the feeds behind it."""
