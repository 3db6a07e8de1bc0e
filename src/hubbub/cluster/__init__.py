"""Hubbub on RabbitMQ, MySQL, Redis and a search server. docs/decisions/0007-cluster-protocol.md has its rules."""
