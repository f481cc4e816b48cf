"""From scores to what people act on: thresholds, what they are worth, and whom to ask again."""
