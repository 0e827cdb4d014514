"""From video files to batches: decoding, records, sampling, augmentation, synthetic data.

Nothing in this package imports JAX when it is imported, so that worker processes start no backend.
"""
