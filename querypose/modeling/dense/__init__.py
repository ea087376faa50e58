"""What the dense methods are made of: they predict a pose at every cell of one feature map."""
