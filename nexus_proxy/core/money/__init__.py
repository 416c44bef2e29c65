"""Money, pure: exact amounts, prices and their versions, what is charged, and the chain of entries."""
