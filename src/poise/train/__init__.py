"""Training: the loop, what it optimises, and the folder it leaves behind."""
