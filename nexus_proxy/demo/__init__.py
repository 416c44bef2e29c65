"""The built-in provider, and what `nexus-proxy demo` shows with it."""
