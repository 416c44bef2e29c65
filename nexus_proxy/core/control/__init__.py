"""What limits and admits, pure: windows, slots, addresses. No clock in here: the caller gives the instant."""
