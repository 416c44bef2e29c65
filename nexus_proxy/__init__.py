"""A metered, OpenAI-compatible front door for Chinese AI models."""

from nexus_proxy import native

native.use()
