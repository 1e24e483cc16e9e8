"""Counts of logs of all kinds, and settings with which a training takes a second: for the tests of `tune`."""

SMALL = {
    "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 1, "max_position_embeddings": 20, "history": [],
    "per_device_train_batch_size": 32, "num_train_epochs": 2, "precision": "fp32",
}  # fmt: skip


def counts(**changed):
    """Of a log without repeats."""
    return {"mean_length": 20.0, "repeat_share": 0.0, "tied_share": 0.0, "items_in_vocabulary": 3000, **changed}


DENSE = counts(mean_length=165.5, tied_share=0.529, items_in_vocabulary=3416)
SPARSE = counts(mean_length=6.04, items_in_vocabulary=9938)
MANY = counts(mean_length=24.3, tied_share=0.3, items_in_vocabulary=27274)
REPEATS = counts(mean_length=89.1, repeat_share=0.311, tied_share=0.953, items_in_vocabulary=3655)
GROCERIES = counts(mean_length=595.1, repeat_share=0.41, tied_share=0.894, items_in_vocabulary=68335)
TIMELESS = counts(mean_length=30.0, repeat_share=0.4, tied_share=0.99)
LOGS = {"dense": DENSE, "sparse": SPARSE, "many": MANY, "repeats": REPEATS, "groceries": GROCERIES, "none": TIMELESS}
