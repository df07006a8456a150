"""What does a student reach alone? Supervised scaling laws and the baseline made of one."""
