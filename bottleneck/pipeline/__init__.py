"""The way of an image into the cache: read, named and decoded, computed, committed; all at once, each in threads."""
