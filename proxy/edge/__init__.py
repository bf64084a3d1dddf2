"""Who may connect and what may come in: connections, deadlines, hosts and origins, keys, bodies."""
