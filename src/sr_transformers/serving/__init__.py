"""What answers users: recommender, session of a visitor, lists for all users, ONNX graphs."""
