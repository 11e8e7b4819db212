"""The answers to a run's queries: whose turn it is, what people said, what is labelled so far."""
