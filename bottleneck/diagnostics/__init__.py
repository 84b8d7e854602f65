"""What this installation and machine can do, for bug reports."""
