"""Fine-tuning: a head becomes the last layer of its network (LP-FT), and both are trained end to end."""
