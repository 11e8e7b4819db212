"""One run of the experiment: regimes, budgets, rounds, and what is kept of them."""

from sal_fast.experiment.config import CHOICES, Config, resolve
from sal_fast.experiment.people import Waiting
from sal_fast.experiment.runner import run

__all__ = ["CHOICES", "Config", "Waiting", "resolve", "run"]
