"""Tables for the terminal and figures for files; nothing is computed here."""
