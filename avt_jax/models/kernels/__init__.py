"""Costly operations, each behind one interface with several forms.

No form of the depthwise convolution or of attention is the fastest everywhere, so each operation
has a registry of forms by name, and every form passes the same tests:

    choice.py            the one place that decides which form runs where
    depthwise_conv.py    the interface: checks, gradient, what it counts as
    depthwise_forms.py   FORWARD, KERNEL_GRADIENT: {name: form}
    attention.py         the interface, FORMS: {name: form}
    attention_forms.py   forms of our own
    attention_flash.py   forms from libraries: cuDNN, Pallas, tokamax
    forms.py             all registries together

A new form is a function, a line in its registry and, where it is to be chosen by itself, a line in
`choice.py`.
"""
