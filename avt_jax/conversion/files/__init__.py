"""Weight files: what all readers share, those of PyTorch, and several files of one model."""
