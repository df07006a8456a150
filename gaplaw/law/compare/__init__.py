"""Which law, and is it better than a rule of thumb? Scores on students that were left out."""
