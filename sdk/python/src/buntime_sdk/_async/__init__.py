"""The async half, from which `generate` makes the sync half."""
