"""`python -m buntime_cli` is the command `buntime`."""

from buntime_cli.main import main

main()
