"""The ledger in one SQLite file, and the only room that speaks SQL: `store` writes, `read` reads beside it."""
