"""What is measured of a training beside its metrics: where its time goes, what that is worth.

Nothing here waits for a device or changes a number of the training.
"""
