"""Quantiles for 95 % intervals."""

NORMAL = 1.959963984540054  # of the standard normal distribution, at 97.5 %
