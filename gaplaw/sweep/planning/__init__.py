"""What would run, in which order, and what would it take?"""
