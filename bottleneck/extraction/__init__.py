"""One job: images are read, decoded and computed in stages, and their features committed to the cache."""
