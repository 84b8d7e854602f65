"""Metrics, and the intervals and tests that say how sure they are."""
