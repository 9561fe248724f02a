"""A trained model in use: faces in pictures and videos named, classes enrolled from a few photos, files for others."""
