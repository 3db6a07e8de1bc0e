"""What Redis holds for a cluster: numbers, what is not stored yet, versions, limits. All of it may be lost."""
