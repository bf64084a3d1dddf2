"""The command line: one file per command or group of commands.

Reads arguments, prints results and chooses exit codes; the work is done in the folders below.
"""
