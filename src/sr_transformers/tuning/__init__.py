"""From a log to the best model that a budget of time buys."""
