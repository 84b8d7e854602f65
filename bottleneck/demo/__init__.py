"""The data sets of the demo: digits from scikit-learn, and two downloads."""
