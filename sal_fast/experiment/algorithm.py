"""Algorithm 1 of the paper: saliency in active learning."""

from sal_fast.experiment.answers.labelled import Labelled
from sal_fast.experiment.rounds import Steps


def active_learning(steps: Steps, until: int | None = None) -> Labelled:
    """Train, test, score the pool, query and annotate, until the planned share of the pool is labelled.

    The line numbers in the comments are those of Algorithm 1. A finished round is not run again. A round that
    was interrupted starts over and ends the same.

    Args:
        steps: does the work of each step.
        until: stop after so many rounds. None: run all of them.

    Returns the labelled set of the last round, or, if `until` ended the run, that of the round to come.
    """
    labelled = steps.labelled_so_far()  # line 2: the start set and the answers so far
    last = min(until or steps.plan.rounds, steps.plan.rounds)
    for round_index in range(steps.finished_rounds, last):  # line 4
        if steps.ended:
            break
        with steps.round(round_index, labelled) as work:
            # lines 5-8: the accuracy model has alpha 0.9. The interpretability model has alpha 0.1, and is
            # trained beside it on the same batches. We train it only when its maps are needed. Algorithm 1
            # trains it earlier too, but never uses it.
            accuracy_model, drawing_model = steps.train(work, labelled)
            steps.test(work, accuracy_model)  # line 19, here in every round, for a learning curve
            if steps.goes_on(work, accuracy_model, labelled):
                query = steps.select(work, accuracy_model, labelled)  # lines 9-10
                # lines 11-16: people draw the maps up to the change point, the other model after it
                answer = steps.annotate(work, query, accuracy_model, drawing_model)
                labelled = labelled.add(answer)  # line 17
    return labelled
