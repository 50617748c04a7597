"""What was seen of the traffic, and what follows from it."""
