"""Indexes that messages are found by."""
