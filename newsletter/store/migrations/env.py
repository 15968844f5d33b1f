"""Run by alembic inside ``store.engine``, which gives the connection and owns the transaction.

A connection of its own would commit by itself: an upgrade that was cut off would leave half a schema.
"""

from alembic import context

from newsletter.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
