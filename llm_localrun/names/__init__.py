"""The names of models and of quantizations: parsing them, and making aliases from them. Pure."""
