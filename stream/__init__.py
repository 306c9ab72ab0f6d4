"""Movement: time, transport, rings, batching, alarms, journal, buses and views. Imports `model`."""
