"""The store in PostgreSQL: `store.py` implements `ports.Store`."""
