"""The feature cache on disk: immutable shards, one folder a spec. See ``cache/README.md``."""
