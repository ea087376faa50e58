"""The demo: poses in pictures, folders, videos and from webcams."""
