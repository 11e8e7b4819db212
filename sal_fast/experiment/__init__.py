"""One run of the experiment: its options, regimes, budgets and rounds, and what is kept of it."""
