"""The in-memory server behind `buntime_sdk.testing`."""
