"""A tracker: a line in one file for each finished round of any run, such as a dashboard could read.

`sal-fast run --data photos/ --tracker examples/plugins/tracker.py:append` uses it.
"""

import json


def append(run, last):
    """`last` is the round that has just finished; `run.path` is the run's folder."""
    line = {"run": str(run.path), "round": last.round, "labelled": last.labelled, "accuracy": last.accuracy}
    with open(run.path.parent / "all-rounds.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
