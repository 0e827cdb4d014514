"""From records to batches: sampling, augmentation, Grain."""
