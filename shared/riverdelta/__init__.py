"""What producers, workers and readers of chats share."""
