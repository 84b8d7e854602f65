"""From paths to pixels: scanning, digests, splits, decoding. No network, no features."""
