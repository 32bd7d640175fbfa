"""The demo: `python -m keras_clip.demo` trains one model twice, without and with clipping."""
