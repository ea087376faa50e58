import torch

from querypose.modeling.pose_nms import oks_nms

SIGMAS = torch.tensor([0.1, 0.1])
POSE = torch.tensor([[0.0, 0.0], [10.0, 10.0]])


def chain(*shifts):
    return torch.stack([POSE + torch.tensor([shift, 0.0]) for shift in shifts])


def test_the_best_pose_suppresses_those_that_resemble_it_and_no_more():
    # OKS of neighbors is 0.755, of the two ends 0.325.
    poses = chain(0.0, 1.5, 3.0)
    assert oks_nms(poses, torch.tensor([0.9, 0.6, 0.5]), SIGMAS, 0.7).tolist() == [0, 2]
    assert oks_nms(poses, torch.tensor([0.6, 0.9, 0.5]), SIGMAS, 0.7).tolist() == [1]
    assert oks_nms(poses, torch.tensor([0.5, 0.6, 0.9]), SIGMAS, 0.8).tolist() == [2, 1, 0]


def test_of_equal_scores_the_earlier_pose_is_kept():
    assert oks_nms(chain(0.0, 0.1), torch.tensor([0.5, 0.5]), SIGMAS, 0.7).tolist() == [0]


def test_the_scale_of_the_frame_does_not_matter():
    scores = torch.tensor([0.9, 0.6, 0.5])
    for scale in (0.01, 100.0):
        assert oks_nms(scale * chain(0.0, 1.5, 3.0), scores, SIGMAS, 0.7).tolist() == [0, 2]


def test_nobody_in_nobody_out():
    assert oks_nms(torch.zeros(0, 2, 2), torch.zeros(0), SIGMAS, 0.7).tolist() == []


def test_persons_of_different_classes_do_not_suppress_each_other():
    poses, scores = chain(0.0, 0.1, 0.2), torch.tensor([0.5, 0.7, 0.6])
    classes = torch.tensor([0, 0, 1])
    assert oks_nms(poses, scores, SIGMAS, 0.7, classes).tolist() == [1, 2]
