"""What would the fit do if the truth were known? Simulated tables, power, coverage, adaptive experiments."""
