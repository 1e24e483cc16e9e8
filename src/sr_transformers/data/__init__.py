"""From a raw log to a batch, in reading order: sources, synthetic, interactions, splits, vocabulary, prepare,
histories, packing, batches."""
