"""What this host is: processors, cgroups, disks, Windows below."""
