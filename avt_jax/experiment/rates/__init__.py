"""Learning rates: which one a training should have."""
