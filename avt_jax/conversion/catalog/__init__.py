"""Published weights by name: where they lie, what is known of them, and how they get here."""
