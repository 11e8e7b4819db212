"""How a worker's threads wait. Importing this chooses it, so it has to be imported before torch."""

from sal_fast._util.waiting import choose

WAITING = choose()
