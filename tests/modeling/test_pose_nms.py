import torch

from querypose.modeling.pose_nms import best_of_alike

SIGMAS = torch.tensor([0.1, 0.1])
POSE = torch.tensor([[0.0, 0.0], [10.0, 10.0]])


def chain(*shifts):
    return torch.stack([POSE + torch.tensor([shift, 0.0]) for shift in shifts])


def kept(poses, scores, threshold=0.7, classes=None):
    """Indices of the poses that are kept."""
    best = best_of_alike(poses, torch.tensor(scores), SIGMAS, threshold, classes)
    return best.nonzero()[:, 0].tolist()


def test_the_best_pose_suppresses_those_that_resemble_it_and_no_more():
    # OKS of neighbors is 0.755, of the two ends 0.325.
    poses = chain(0.0, 1.5, 3.0)
    assert kept(poses, [0.9, 0.6, 0.5]) == [0, 2]
    assert kept(poses, [0.6, 0.9, 0.5]) == [1]
    assert kept(poses, [0.5, 0.6, 0.9], threshold=0.8) == [0, 1, 2]


def test_of_equal_scores_the_earlier_pose_is_kept():
    assert kept(chain(0.0, 0.1), [0.5, 0.5]) == [0]


def test_the_scale_of_the_frame_does_not_matter():
    for scale in (0.01, 100.0):
        assert kept(scale * chain(0.0, 1.5, 3.0), [0.9, 0.6, 0.5]) == [0, 2]


def test_nobody_in_nobody_out():
    assert kept(torch.zeros(0, 2, 2), []) == []


def test_persons_of_different_classes_do_not_suppress_each_other():
    classes = torch.tensor([0, 0, 1])
    assert kept(chain(0.0, 0.1, 0.2), [0.5, 0.7, 0.6], classes=classes) == [1, 2]


def test_persons_who_stand_upright_suppress_each_other():
    head_and_feet = torch.tensor([[50.0, 10.0], [50.0, 110.0]])
    poses = torch.stack([head_and_feet, head_and_feet + 0.5, head_and_feet + 40])
    assert kept(poses, [0.6, 0.9, 0.5]) == [1, 2]


def test_boxes_go_with_their_persons():
    # Alone the sizes of the boxes say which two points, three pixels apart, are of one person.
    points = torch.tensor([20.0, 80, 23, 83])[:, None, None].expand(-1, 1, 2)
    half = torch.tensor([[4.0], [40], [4], [40]])
    boxes = torch.cat([points[:, 0] - half, points[:, 0] + half], dim=1)
    scores = torch.tensor([0.6, 0.7, 0.8, 0.9])
    best = best_of_alike(points, scores, SIGMAS[:1], 0.7, boxes=boxes)
    assert best.tolist() == [True, False, True, True]
