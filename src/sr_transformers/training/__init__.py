"""Training with the HF Trainer: arguments, the switch from Adam to SGD, recipes, runs."""
