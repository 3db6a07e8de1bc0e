"""The edge: HTTP in, problems out. Hot routes run straight on the connection; the rest is a Starlette application."""
