"""Classifiers over features: the base class, one module for each family, and the search."""
