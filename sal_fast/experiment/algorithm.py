"""Algorithm 1 of the paper: saliency in active learning."""

from __future__ import annotations

from sal_fast.experiment.lab import Lab


def active_learning(lab: Lab, until: int | None = None) -> None:
    """Train, test, score the pool, query, annotate; until the planned share of the pool is labelled.

    Line numbers are Algorithm 1's. `lab` does each step's work and keeps its result: a round that is finished
    is not run again, and one that was interrupted starts over and ends the same. `until`: stop after so many
    rounds.
    """
    labelled = lab.labelled_so_far()  # line 2: the start set, and what earlier rounds of this run added
    for number in range(lab.finished_rounds, min(until or lab.plan.rounds, lab.plan.rounds)):  # line 4
        with lab.round(number, labelled):
            # lines 5-8: alpha 0.9; beside it the interpretability model, alpha 0.1, on the same batches, only
            # where its maps are asked for, after the change point
            accuracy_model, generator = lab.train(number, labelled)
            lab.test(accuracy_model)  # line 19, in every round: a learning curve
            if number + 1 < lab.plan.rounds:
                query = lab.select(number + 1, accuracy_model, labelled)  # lines 9-10
                # lines 11-16: people draw the maps up to the change point, the generator after it
                answer = lab.annotate(number + 1, query, generator)
                labelled = labelled.add(answer)  # line 17
