"""The answers to the queries of a run: the map source of each, people's answers, and the labelled set."""
