"""The server that `buntime_sdk.testing` has in memory."""
