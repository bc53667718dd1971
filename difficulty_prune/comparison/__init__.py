"""Whether it pays: trainings compared seed by seed, and what may be said of their differences."""
