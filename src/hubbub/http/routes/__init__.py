"""What the API does in no haste, a file for each resource; every route is declared on its handler."""
