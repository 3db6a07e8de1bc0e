"""Hubbub: a chat API that loses nothing it has acknowledged."""

from importlib.metadata import version

__version__ = version("hubbub")
