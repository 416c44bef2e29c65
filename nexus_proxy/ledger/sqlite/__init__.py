"""The ledger in one SQLite file, and the only room that imports sqlite3: `store` writes, `read` reads beside it."""
