"""Quantiles that 95 % intervals are made of."""

NORMAL = 1.959963984540054  # of the standard normal distribution, at 97.5 %
