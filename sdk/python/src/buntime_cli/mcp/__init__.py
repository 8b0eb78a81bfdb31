"""`buntime mcp`: the API as Model Context Protocol tools. It is an ordinary client of a server."""
