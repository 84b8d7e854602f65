"""The main job on images that need no search: digits from scikit-learn, two classic downloads."""
