"""What `benchmarks/gpu.py` measures, a file per part; each is run in a process of its own."""
