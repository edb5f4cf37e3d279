"""What a client can ask for: one module per route or protocol, and the table of WebSocket routes."""
