"""The model: configuration, network, loss. This folder is flat and imports nothing of ours, so that it travels to the Hub."""
