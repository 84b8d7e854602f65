"""What is wrong with the data, and what to label next."""
