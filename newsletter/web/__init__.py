"""What the product shows in a browser. So far only the preview, on this machine."""
