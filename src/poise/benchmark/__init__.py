"""How fast models are on this machine, what the time goes into, and how much of the machine they use."""
