"""A cluster's data in Redis: numbers, messages that are not stored yet, versions, limits. All of it may be lost."""
