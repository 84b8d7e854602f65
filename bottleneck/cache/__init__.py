"""The feature cache on disk: immutable shards, one folder per spec. See ``cache/README.md``."""
