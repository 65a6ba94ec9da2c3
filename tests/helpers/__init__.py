"""What several tests share: slow obvious models, and how hypothesis is run."""
from hypothesis import settings

# The same examples on each run and each machine: a failure is a change of the code, never of the dice.
REPEATABLE = settings(derandomize=True, database=None, deadline=None)
