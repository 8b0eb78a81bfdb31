"""What deploy/ ships, tried with the programs that read it."""
