"""Training of a known network on each device: how fast, how accurate, numerically right."""
