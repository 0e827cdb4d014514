"""Studies: a grid of settings, each trained over several seeds."""
