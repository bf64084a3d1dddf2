"""Child processes: started, ended, their output."""
