"""What a terminal, a log or a spreadsheet is shown: names from outside are text alone."""
