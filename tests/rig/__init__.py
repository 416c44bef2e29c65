"""What the fault tests stand on: a scripted provider, a raw client, a door, and independent book-keeping."""
