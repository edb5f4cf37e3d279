"""How chats are stored: every key, script, field name and raw command on them."""
