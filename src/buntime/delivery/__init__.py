"""Sends events to webhooks: at least once each, and those of a session in order where possible."""
