"""Train the models of a round on the labelled set, test them, and score a pool with them."""

from sal_fast.train.evaluate import Scores, evaluate, score
from sal_fast.train.head import HeadTraining
from sal_fast.train.loop import Epoch, Fitted, Job, Training
from sal_fast.train.recipe import Recipe, validation_interval
from sal_fast.train.step import Step

__all__ = [
    "Epoch",
    "Fitted",
    "HeadTraining",
    "Job",
    "Recipe",
    "Scores",
    "Step",
    "Training",
    "evaluate",
    "score",
    "validation_interval",
]
