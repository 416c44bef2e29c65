"""The command line: a thin client of the admin socket, or of the ledger where no server runs."""
