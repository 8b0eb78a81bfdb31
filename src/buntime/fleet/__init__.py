"""Many hosts as one service: who is a member, for how long, and what a host does that is one no more."""
