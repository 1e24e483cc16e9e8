"""Raw logs: where they come from, the engines that read them, times, and what makes them sound."""
