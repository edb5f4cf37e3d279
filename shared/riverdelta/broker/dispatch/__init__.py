"""How chats get an owner: attach jobs in arq's own format. The only place that knows that format."""
