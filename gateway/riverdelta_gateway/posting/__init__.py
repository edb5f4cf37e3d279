"""``/chats/post``: validate posts, accept them, and send the progress of their turns."""
