"""systemd: the units' text, systemctl, readiness and watchdog messages.

Decides nothing about what is served, and does nothing where systemd does not run.
"""
