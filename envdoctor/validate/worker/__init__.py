"""Scripts for the interpreter of the target: standard library, NumPy and Keras only, Python 3.9 and later."""
