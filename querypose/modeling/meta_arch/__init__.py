"""One method per module; importing this package registers them with Detectron2."""
