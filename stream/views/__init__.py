"""The ward in a terminal: what a run shows and sums up."""
