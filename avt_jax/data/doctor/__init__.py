"""What is likely to be wrong with one's own clips, found before anything is trained on them."""
