"""From cached features to a run: splits, search and test of a head, and what is saved."""
