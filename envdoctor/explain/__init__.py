"""From a log to the findings of the catalogue: what its messages mean, not which strings it has."""
