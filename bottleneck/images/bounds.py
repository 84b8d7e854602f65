"""Bounds that options have, too; importing them imports nothing else."""

LARGEST_SIDE = 16_384  # pixels of what an image is resized and cropped to; networks see some hundreds
