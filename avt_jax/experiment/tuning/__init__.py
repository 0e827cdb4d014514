"""Finding the fastest forms of the costly operations on a machine, and keeping what was found."""
