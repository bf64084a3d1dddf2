"""The host's configuration: its file, the family file, credentials, and where our folders are.

Reads and validates; never writes a setting and never starts anything.
"""
