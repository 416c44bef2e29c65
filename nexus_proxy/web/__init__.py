"""What speaks HTTP to clients: connections, what comes in on them, and what goes out."""
