"""dewatermark: finds semi-transparent marks over a picture and removes them."""
