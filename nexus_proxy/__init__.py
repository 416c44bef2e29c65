"""A metered, OpenAI-compatible front door for Chinese AI models."""
