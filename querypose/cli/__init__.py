"""Commands: the demo, which finds poses in images, folders, videos and through webcams."""
