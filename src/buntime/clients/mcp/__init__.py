"""`buntime mcp`: the API as tools of the Model Context Protocol. It is a client of a server, as anybody is."""
