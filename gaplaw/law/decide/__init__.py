"""What should be done? The choice of a teacher, its cost, the rules of thumb beside it, and the next cell."""
