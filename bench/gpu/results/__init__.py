"""What was found: figures of a run, the goals they are judged by, and the table of all cards."""
