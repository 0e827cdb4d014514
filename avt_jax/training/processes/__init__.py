"""Several processes of one training: joining, agreeing, ending together.

Every process runs the same command. The first one, of index 0, writes and speaks; the others
compute. What one of them decided alone the others would wait for in vain, so all decisions are made
from numbers that all of them have.
"""
