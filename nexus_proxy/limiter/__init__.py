"""How many requests an account and a key may start in a minute."""
