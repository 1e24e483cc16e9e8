"""How good a recommender is: full ranking over the vocabulary, metrics, baselines."""
