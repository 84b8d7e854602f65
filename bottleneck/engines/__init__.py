"""Engines: what runs a backbone on a batch, ``uint8 (b, h, w, 3)`` to ``float32 (b, d)``."""
