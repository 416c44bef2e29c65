"""Who owns what: accounts, keys, holds, charges. Durable, append-only, provable."""
