"""Ward buses: each bridge carries alerts, and what else is asked for, from the gateway to one bus."""
