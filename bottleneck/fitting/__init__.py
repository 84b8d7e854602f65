"""From cached features to a run: splits, the search and test of a head, and saving it."""
