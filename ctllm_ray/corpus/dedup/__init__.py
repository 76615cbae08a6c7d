"""The phases of the passes that remove duplicates, and what they share."""
