"""Tables for the terminal and figures for files; their numbers come from `jaxqring.jobs`."""
