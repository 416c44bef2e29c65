"""What a provider puts on the wire, pure: framing, usage, errors, and how an answer ended."""
