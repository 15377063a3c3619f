"""dm: a Git-style store for research data."""
