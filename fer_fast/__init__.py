"""Fused training losses for facial-expression recognition and deep metric learning."""
