"""Commands for vectors of clips: making an index, searching it."""
