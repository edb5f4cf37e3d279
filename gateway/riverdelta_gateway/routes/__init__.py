"""The routes of WebSocket and HTTP: a module per subject; `table` has the routes of the WebSocket."""
