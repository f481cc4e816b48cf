"""Pictures of results: arrays in, pictures out. Colours, overlays and explanations."""
