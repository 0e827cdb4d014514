"""Costly operations behind one interface each, whatever form computes them."""
