"""A head handed back to its network, and both trained on, end to end."""
