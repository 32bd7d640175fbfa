"""The one door to private Keras names and to the frameworks."""
