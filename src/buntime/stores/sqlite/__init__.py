"""The store in one SQLite file: `store.py` implements `ports.Store`."""
