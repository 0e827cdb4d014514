"""The process of a command: how it starts, and what other processes it belongs to."""
