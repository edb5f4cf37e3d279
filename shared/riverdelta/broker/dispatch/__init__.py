"""Request owners for chats: attach jobs in arq's own format. Only this folder knows that format."""
