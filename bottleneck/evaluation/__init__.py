"""Metrics, confidence intervals, significance tests, and data leakage."""
