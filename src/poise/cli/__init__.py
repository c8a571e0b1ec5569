"""The command line: one module a verb. They import the heavy rooms when a verb runs."""
