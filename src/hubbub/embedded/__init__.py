"""The embedded mode: everything on one host, without other servers. A command is acknowledged once it is committed."""
