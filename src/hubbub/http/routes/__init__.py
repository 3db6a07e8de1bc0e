"""The API's routes other than the hot ones, a file for each resource; every route is declared on its handler."""
