"""Bounds shared with the options of commands, in a module without imports."""

LARGEST_SIDE = 16_384  # pixels of the resized or cropped image; networks use a few hundred
