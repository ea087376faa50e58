"""What QueryPose is made of: learned queries become boxes, and boxes become keypoints."""
