"""The plain handlers: models, balance, health, administration."""
