"""Alembic's entry point. The caller hands over an open connection; there is no alembic.ini and no offline mode."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
