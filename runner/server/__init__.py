"""The team server: deliveries from forges become runs, and everybody can follow them."""
