"""The ward's memory and voice: journal of alerts, what stands, and how a client follows it."""
