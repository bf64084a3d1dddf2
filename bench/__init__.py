"""Speed, as ratios of runs side by side on one machine."""
