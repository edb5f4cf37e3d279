"""Turns: a prompt and its reply, each an arq job on a queue of its own."""
