"""From a raw log to a batch, in reading order: logs/, splits, vocabulary, prepare, prepared, packing, batches."""
