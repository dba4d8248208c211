"""The model card: a model measured on data and by samples, as a page with pictures."""
