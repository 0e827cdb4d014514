"""Sets of which a clip has any number of classes: what is measured, counted, shown and drawn."""
