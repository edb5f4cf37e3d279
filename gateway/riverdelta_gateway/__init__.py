"""The web edge of riverdelta: WebSocket, SSE and HTTP over the chats on Redis."""
