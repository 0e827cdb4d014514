"""AV-Sync: rendered data in which what is seen and what is heard belong together, or do not."""
