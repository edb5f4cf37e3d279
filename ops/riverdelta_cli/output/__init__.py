"""Print the output of commands."""
