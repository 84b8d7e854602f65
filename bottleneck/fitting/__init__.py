"""From cached features to a run: images and splits, a head that is searched and tested, and what is saved of it."""
