"""How a running launcher is asked and told: its socket, its client, its status document."""
