"""The fleet in PostgreSQL. Imported only where the store is there too."""
