"""The commands that talk to a server, built on the Python SDK. Each imports what it needs when it runs."""
