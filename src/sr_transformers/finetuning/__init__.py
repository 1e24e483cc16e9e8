"""From a trained checkpoint to another item vocabulary, and on with training there."""
