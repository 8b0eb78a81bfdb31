"""The benchmark: what a client sees of a server with the shipped settings, beside what the machine itself can do."""
