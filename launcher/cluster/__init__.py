"""Many hosts behind one endpoint. Only with the extra `trillama[cluster]`; `in_ray` alone imports Ray.

No request passes through Ray: HAProxy (`haproxy`) → Fronts (`proxy.front`) → nodes, each a whole `trillama serve` on
its host. `head` keeps all of that running on the front host, `director` tells the Fronts which nodes there are, as
`nodes` decides. Ray places, starts, checks, restarts, scales and rolls the nodes: `ray_start` is its command line,
`in_ray` what runs in it.
"""
