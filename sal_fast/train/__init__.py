"""Training one model on the labelled set, and testing it."""

from sal_fast.train.evaluate import Examples, Scores, evaluate, score
from sal_fast.train.loop import Fitted, Recipe, fit

__all__ = ["Examples", "Fitted", "Recipe", "Scores", "evaluate", "fit", "score"]
