"""Client of buntime."""
