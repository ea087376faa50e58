"""The demo on the command line: poses in images, folders, videos and webcams."""
