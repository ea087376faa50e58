"""Poses from an ONNX file of querypose-export, with onnxruntime, NumPy and OpenCV alone.

python demo/onnx_demo.py model.onnx photo.jpg poses.jpg
python demo/onnx_demo.py model.onnx walk.mp4 poses.mp4 --save-json poses.json
"""

import argparse
import colorsys
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

VIDEOS = {".avi", ".mkv", ".mov", ".mp4", ".webm"}
RIM = (32, 32, 32)


class Poses:
    """Finds people in images, as the file says of itself how."""

    def __init__(self, path):
        if not Path(path).is_file():
            sys.exit(f"onnx_demo: there is no file {path}.")
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        props = self.session.get_modelmeta().custom_metadata_map
        if "format" not in props:
            sys.exit(f"onnx_demo: {path} is not a file of querypose-export.")
        self.about = {name: json.loads(value) for name, value in props.items()}

    def __call__(self, image):
        """Boxes (n, 4), scores (n,) and keypoints (n, K, 3) in pixels of a (H, W, 3) BGR image."""
        size = self.about["size"] or self.network_size(*image.shape[:2])
        pixels = image if self.about["channel_order"] == "BGR" else image[..., ::-1]
        pixels = resize(pixels, *size).transpose(2, 0, 1)[None].astype(self.about["input_type"])
        outputs = ["boxes", "scores", "keypoints", "valid"]
        boxes, scores, keypoints, valid = self.session.run(outputs, {"image": pixels})
        kept = valid[0] & (scores[0] >= self.about["score_threshold"])
        scale = np.float32([image.shape[1] / size[1], image.shape[0] / size[0]])
        keypoints = keypoints[0, kept] * np.append(scale, np.float32(1))
        return boxes[0, kept] * np.tile(scale, 2), scores[0, kept], keypoints

    def network_size(self, height, width):
        """The shortest edge becomes that of the rule, unless the longest one passes its limit."""
        edge, limit = (self.about["size_rule"][key] for key in ("shortest_edge", "limit"))
        if not edge:
            return height, width
        scale = edge / min(height, width)
        new = [edge if side == min(height, width) else scale * side for side in (height, width)]
        if max(new) > limit:
            new = [side * limit / max(new) for side in new]
        return [max(1, int(side + 0.5)) for side in new]


def resize(image, height, width):
    """Resizes as Pillow does ("bilinear"), which models are trained with: it blurs what shrinks."""
    for axis, length in ((1, width), (0, height)):
        scale = image.shape[axis] / length
        if scale != 1:
            centers = (np.arange(length) + 0.5) * scale
            distances = np.abs(np.arange(image.shape[axis]) + 0.5 - centers[:, None])
            weights = np.clip(1 - distances / max(scale, 1), 0, None)
            weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
            image = np.moveaxis(np.tensordot(weights, image.astype(np.float32), (1, axis)), 0, axis)
            image = np.floor(image + 0.5)
    return image


def color_of(person):
    """BGR; consecutive persons differ clearly."""
    color = colorsys.hsv_to_rgb((0.12 + person * 0.618034) % 1, 0.75, 1)
    return tuple(round(255 * value) for value in reversed(color))


def fixed(point):
    """OpenCV's sixteenths of a pixel, counted from the center of the first."""
    return tuple(round((min(max(float(value), -(2**15)), 2**15) - 0.5) * 16) for value in point)


def draw(image, boxes, keypoints, about):
    """Draws people, largest first, into a BGR image."""
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))
    widths = [int(np.clip(round(size / 60), 1, 12)) for size in sizes.tolist()]
    order = np.argsort(-sizes, kind="stable").tolist()
    for person in order:
        x0, y0, x1, y1 = boxes[person].round().astype(int).tolist()
        border = max(1, widths[person] // 2)
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), color_of(person), border)
    index = {name: place for place, name in enumerate(about["keypoints"])}
    for person in order:
        color, width, points = color_of(person), widths[person], keypoints[person]
        visible = points[:, 2] > about["keypoint_threshold"]
        limbs = [
            (fixed(points[index[start], :2]), fixed(points[index[end], :2]), tuple(limb[::-1]))
            for (start, end), limb in zip(about["edges"], about["edge_colors"], strict=True)
            if visible[index[start]] and visible[index[end]]
        ]
        for start, end, _ in limbs:
            cv2.line(image, start, end, color, width + max(2, width // 2), cv2.LINE_AA, 4)
        for start, end, limb in limbs:
            cv2.line(image, start, end, limb, width, cv2.LINE_AA, 4)
        radius = max(1.5, 0.8 * width)
        for x, y, _ in points[visible]:
            for size, paint in ((radius + 1, RIM), (radius, color)):
                cv2.circle(image, fixed((x, y)), int(size * 16), paint, -1, cv2.LINE_AA, 4)


def frames_of(path):
    """The frames of a video, or the one image."""
    if Path(path).suffix.lower() not in VIDEOS:
        image = cv2.imread(path)
        if image is None:
            sys.exit(f"onnx_demo: {path} is no image that OpenCV reads.")
        yield image, 0
        return
    # FFmpeg takes "12:" at the start of a path for a protocol.
    video = cv2.VideoCapture(path if "://" in path else str(Path(path).absolute()))
    if not video.isOpened():
        sys.exit(f"onnx_demo: {path} is no video that OpenCV reads.")
    while (read := video.read())[0]:
        yield read[1], video.get(cv2.CAP_PROP_FPS) or 25


def check_targets(source, targets):
    """Ends the command if a result would replace the input, or has no folder to go to."""
    for target in map(Path, targets):
        if target.resolve() == Path(source).resolve():
            sys.exit(f"onnx_demo: {target} is the input: name another output.")
        if not target.parent.is_dir():
            sys.exit(f"onnx_demo: there is no folder {target.parent}: make it first.")


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a file of querypose-export")
    parser.add_argument("input", help="an image or a video")
    parser.add_argument("output", help="the same with poses")
    parser.add_argument("--save-json", metavar="FILE.json", help="the people of every frame")
    args = parser.parse_args()
    check_targets(args.input, [args.output, *filter(None, [args.save_json])])
    poses, writer, found = Poses(args.model), None, []
    for image, rate in frames_of(args.input):
        boxes, scores, keypoints = poses(image)
        rows = zip(boxes.tolist(), scores.tolist(), keypoints.tolist(), strict=True)
        found.append([{"box": b, "score": s, "keypoints": k} for b, s, k in rows])
        draw(image, boxes, keypoints, poses.about)
        if not rate:
            written = cv2.haveImageWriter(args.output) and cv2.imwrite(args.output, image)
        else:
            if writer is None:
                code = cv2.VideoWriter_fourcc(*"mp4v")
                target = str(Path(args.output).absolute())
                writer = cv2.VideoWriter(target, code, rate, image.shape[1::-1])
            written = writer.isOpened()
            writer.write(image)
        if not written:
            sys.exit(f"onnx_demo: OpenCV cannot write {args.output}: wrong folder or ending?")
    if writer is not None:
        writer.release()
    if args.save_json:
        names = poses.about["keypoints"]
        Path(args.save_json).write_text(json.dumps({"keypoint_names": names, "frames": found}))


if __name__ == "__main__":
    main()
