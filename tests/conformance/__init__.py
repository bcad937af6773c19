"""What both colours of a queue do alike, and every call that is refused before anything is sent."""
