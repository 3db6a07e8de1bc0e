"""Everything on one host, with no other server: a commit is an acknowledgement."""
