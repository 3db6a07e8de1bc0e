"""What a chat is. Nothing here does I/O, speaks HTTP or knows an adapter."""
