"""``/chats/post``: what a client may ask for, and what it is told while the reply is written."""
