"""The autoencoder family: what the code of a folder of pictures is good for."""
