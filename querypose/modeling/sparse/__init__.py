"""The parts of QueryPose: box and keypoint decoder, matcher, losses and readout."""
