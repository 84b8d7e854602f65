"""Self-contained HTML pages: the report of a run, and of a comparison."""
