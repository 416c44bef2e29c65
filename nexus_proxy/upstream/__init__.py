"""The way to the providers: names, connections, and the exchange that one request has with one of them."""
