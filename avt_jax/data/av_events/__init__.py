"""AV-Events: rendered data sets whose truth is known."""
