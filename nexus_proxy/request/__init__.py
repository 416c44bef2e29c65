"""One request as the chain sees it, the services that it uses, and what is written down when it is over."""
