"""systemd: units, systemctl, readiness."""
