"""A metered, OpenAI-compatible front door for Chinese AI models."""

from nexus_proxy.runtime import native

native.use()
