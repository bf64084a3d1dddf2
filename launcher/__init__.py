"""Everything but HTTP: decides what runs on this host, starts it, supervises it, and ends it. The path of one start:

`cli` reads the arguments, `settings` the configuration; `fleet.listener` opens the port. Then `fleet.prepare` decides:
`engine` finds a llama-server and its devices, on a `host` whose cores and limits it asks; `planning` fits the models
into the memory; `models` locates the files, which `hub` downloads or `conversion` makes from a package; `images` says
what images require. The outcome is one `supervision.deployment`.
`fleet.fleet` runs it: `supervision` keeps each llama-server alive, checked and restarted, as a child process of
`processes`; `proxies` starts the proxy and hands over to the next one; `fleet.reconcile` starts models on demand and
evicts idle ones. Meanwhile `terminal` shows progress, `systemd` hears that it is ready, and `control` answers
`trillama status` and the like. Beside that path: `build` compiles an engine, `multivector` fetches the projection,
`doctor` checks the installation, `measure` benchmarks it, `corpus` embeds files of any size, `cluster` serves with many
hosts.
"""

PART_OF = "trillama"  # how `trillama.py` recognises this package

__version__ = "0.1.0"
