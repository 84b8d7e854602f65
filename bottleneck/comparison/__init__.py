"""Many models and heads on the same images, splits and folds."""
