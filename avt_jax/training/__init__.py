"""Training: mesh, sharding, state, optimiser, the jitted step, the loop and its checkpoints."""
