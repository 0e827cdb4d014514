"""What the commands do, callable from Python: training, evaluation, cost, studies.

The parts live in their modules; `avt_jax` itself names those that users need.
"""
