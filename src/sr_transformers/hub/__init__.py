"""From a finished run to a repository on the Hub: what must be true of it, what its card says, how it gets there."""
