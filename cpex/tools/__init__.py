"""The command line: `cli` parses and dispatches, and each command group has a module of its own.

Only this package imports the libraries for command lines, tables and progress bars. What a command finds out is a plain
value; printing it is a function beside it.
"""
