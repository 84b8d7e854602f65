"""What runs a backbone on a batch: ``uint8 (b, h, w, 3)`` in, ``float32 (b, d)`` out."""
