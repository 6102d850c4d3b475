"""One file a kind, and the clients below them."""
