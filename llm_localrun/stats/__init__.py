"""What llm's log says of the speed of our models: rows, figures, and learned rates."""
