"""From predictions to numbers and pictures; knows no model, only functions that predict."""
