"""What an operator can do, as verbs: over a Unix socket beside the ledger, or with the ledger opened directly."""
