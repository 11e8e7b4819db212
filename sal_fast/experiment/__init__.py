"""One run of the experiment: its options, regimes, budgets and rounds, and the files that it keeps."""
