"""What a client asks for, pure: its head, its key, its parameters, and the body that goes upstream."""
