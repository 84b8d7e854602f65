"""A local web application to look at images, find errors and edit labels."""
