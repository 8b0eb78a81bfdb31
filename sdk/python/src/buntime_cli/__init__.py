"""The command `buntime`: the command line and the MCP server. Both are ordinary clients of a server."""
