"""How chats are read: `Subscriber`, and below it what reads the log and follows the channels."""
