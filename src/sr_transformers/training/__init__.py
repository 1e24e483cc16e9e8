"""Training with the HF Trainer: arguments, the switch from Adam to SGD, recipes and which suits a log, runs."""
