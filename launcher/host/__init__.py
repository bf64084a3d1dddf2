"""Facts about this host: processors, cgroups, disks, processes, WSL.

Only measures; knows nothing of models or settings.
"""
