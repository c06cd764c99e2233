"""What the commands share: the command line, plans and tables."""
