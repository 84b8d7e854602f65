"""A run on disk: its head, its card, its predictions, and which run is used by default."""
