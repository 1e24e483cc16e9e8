"""What a training run will take before it is started: memory by part, FLOPs, time, and which parallelism fits."""
