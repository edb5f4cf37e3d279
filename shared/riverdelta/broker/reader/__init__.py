"""Read chats: `Subscriber`, and below it the reader of the log and the feeds of the channels."""
