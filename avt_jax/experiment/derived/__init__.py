"""Run folders that no training wrote: made of the weights of others."""
