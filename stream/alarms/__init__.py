"""Alarms of a bed: conditions, their criteria on two clocks, and the life of an alert."""
