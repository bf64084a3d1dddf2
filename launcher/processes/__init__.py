"""Child processes of any kind: their lifetime, their logs, the private folder with their sockets.

Knows nothing of what a child serves, and never restarts one: that is `supervision`'s.
"""
