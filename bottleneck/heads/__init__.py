"""Classifiers over features: what a head is, one module a family, their search."""
