"""A page in the browser that shows what a checkpoint recommends (package gradio)."""
