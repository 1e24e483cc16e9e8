"""The model: configuration, network, loss. Flat, and imports nothing of ours, so that it travels to the Hub."""
