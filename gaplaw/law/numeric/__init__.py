"""What do all fits compute with? A robust minimiser and the quantiles of draws."""
