"""A job whose parts are read, embedded and written on the hosts of a cluster, each with its own node.

`engine` is the choice on the command line. Only with the extra `trillama[cluster]`: `spread` keeps a `worker` running
on each host that serves, and `board` knows which of them has which part.
"""
