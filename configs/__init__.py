"""Training recipes; `avt train --config <name>` finds them here."""
