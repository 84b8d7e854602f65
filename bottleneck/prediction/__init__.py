"""Predict the classes of new images with a run, and evaluate its predictions."""
