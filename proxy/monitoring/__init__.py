"""What an operator sees of a running proxy: the state of its backends and their processes, as metrics.

Never part of the path of a request; knows of the launcher what `contract.admin` says.
"""
