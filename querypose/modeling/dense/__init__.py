"""Parts of the dense methods, which predict a pose at every cell of one feature map."""
