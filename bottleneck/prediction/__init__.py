"""A run and new images: its predictions, and how right they are."""
