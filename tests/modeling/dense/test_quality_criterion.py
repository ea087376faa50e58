import pytest
import torch
from detectron2.structures import Instances, Keypoints

from querypose.modeling.dense.cells import cells_to_pixels
from querypose.modeling.dense.persons import LabeledPersons
from querypose.modeling.dense.quality_criterion import QualityCriterion
from querypose.modeling.dense.quality_head import QualityMaps
from querypose.modeling.dense.quality_targets import QualityTargets, cells_per_person
from querypose.skeleton import COCO_SKELETON, CROWDPOSE_SKELETON


def labeled_persons(centers, areas, size=(128, 128), num_keypoints=17):
    """Persons whose keypoints are on a line about the centers, in cells."""
    steps = torch.linspace(-3, 3, num_keypoints)
    offsets = torch.stack([steps, 2 * steps], dim=-1)
    places = torch.tensor(centers).view(-1, 1, 2) + offsets
    keypoints = torch.cat([cells_to_pixels(places), torch.full_like(places[..., :1], 2)], dim=-1)
    instances = Instances((4 * size[0], 4 * size[1]))
    instances.gt_keypoints = Keypoints(keypoints)
    instances.gt_areas = torch.tensor(areas)
    return LabeledPersons.from_instances(
        instances,
        num_keypoints=num_keypoints,
        area_field="gt_areas",
        device=torch.device("cpu"),
    )


def nobody(size=(16, 16), num_keypoints=17):
    return LabeledPersons.from_instances(
        Instances((4 * size[0], 4 * size[1])),
        num_keypoints=num_keypoints,
        area_field="gt_areas",
        device=torch.device("cpu"),
    )


def losses_of(criterion, persons, scores, poses=None, qualities=None, masks=None):
    size = tuple(scores.shape[-2:])
    targets = QualityTargets.from_persons(persons, size, 1024.0)
    sizes = [(4 * size[0], 4 * size[1])] * len(persons)
    return criterion(
        QualityMaps(scores, qualities, scores, None, None),
        targets.keypoints if poses is None else poses,
        targets,
        torch.ones_like(scores[:, 0]) if masks is None else masks,
        criterion.normalizers(targets, sizes),
    )


@pytest.mark.parametrize(
    ("center", "count"), [((64.0, 64.0), 45), ((10.5, 10.0), 48), ((10.5, 10.5), 52)]
)
def test_a_person_owns_the_cells_within_four_of_its_center(center, count):
    targets = QualityTargets.from_persons([labeled_persons([center], [1e4])], (128, 128), 0.0)
    assert (targets.owners >= 0).sum() == count
    assert cells_per_person() == 45


class TestLossOfTheScoreMap:
    PERSON = ([(64.0, 64.0)], [1e4])

    def loss(self, scores, **switches):
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas, **switches)
        return losses_of(criterion, [labeled_persons(*self.PERSON)], scores)["loss_cir"].item()

    def test_zero_scores_of_perfect_poses_cost_one(self):
        assert self.loss(torch.zeros(1, 1, 128, 128)) == pytest.approx(1.0)

    def test_scores_of_a_half_everywhere(self):
        half = torch.full((1, 1, 128, 128), 0.5)
        assert self.loss(half) == pytest.approx(9.32722, abs=1e-5)
        assert self.loss(half, cir_reduction="pixel") == pytest.approx(0.0256180, abs=1e-7)

    def test_scores_that_equal_their_poses_cost_nothing(self):
        targets = QualityTargets.from_persons([labeled_persons(*self.PERSON)], (128, 128), 0.0)
        assert self.loss((targets.owners >= 0).float()[:, None]) == pytest.approx(0, abs=1e-10)

    def test_images_without_persons_are_divided_as_if_each_had_one(self):
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
        losses = losses_of(criterion, [nobody(), nobody()], torch.full((2, 1, 16, 16), 0.1))
        assert losses["loss_cir"].item() == pytest.approx(0.0056889, abs=1e-7)
        assert losses["loss_displacement"] == 0

    def test_masked_cells_do_not_count(self):
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
        scores, masks = torch.full((1, 1, 16, 16), 0.1), torch.zeros(1, 16, 16)
        assert losses_of(criterion, [nobody()], scores, masks=masks)["loss_cir"] == 0


class TestTarget:
    def oks(self, skeleton, shift, area=625.0 * 16):
        persons = labeled_persons([(64.0, 64.0)], [area], num_keypoints=skeleton.num_keypoints)
        targets = QualityTargets.from_persons([persons], (128, 128), 0.0)
        criterion = QualityCriterion(sigmas=skeleton.sigmas)
        return criterion.oks(targets.keypoints + torch.tensor([shift, 0.0]), targets), targets

    def test_all_keypoints_off_by_a_little(self):
        oks, _ = self.oks(COCO_SKELETON, 1.3)
        torch.testing.assert_close(oks, torch.full((45,), 0.862338), atol=1e-5, rtol=0)
        oks, _ = self.oks(CROWDPOSE_SKELETON, 1.3)
        torch.testing.assert_close(oks, torch.full((45,), 0.947533), atol=1e-5, rtol=0)

    def test_one_keypoint_off_at_stride_four_counts_as_in_pixels(self):
        # A nose that is 5.2 px, or 1.3 cells, off.
        persons = labeled_persons([(64.0, 64.0)], [1e4])
        one = torch.zeros(17, dtype=torch.bool)
        one[0] = True
        persons = persons._replace(labeled=persons.labeled & one, in_map=persons.in_map & one)
        targets = QualityTargets.from_persons([persons], (128, 128), 0.0)
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
        poses = targets.keypoints + torch.tensor([1.3, 0.0])
        oks = criterion.oks(poses, targets)
        torch.testing.assert_close(oks, torch.full_like(oks, 0.606531), atol=1e-5, rtol=0)

    def test_there_is_no_gradient_through_the_target(self):
        persons = [labeled_persons([(8.0, 8.0)], [1e4], size=(16, 16))]
        targets = QualityTargets.from_persons(persons, (16, 16), 0.0)
        poses = (targets.keypoints + 0.3).requires_grad_()
        scores = torch.zeros(1, 1, 16, 16, requires_grad=True)
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
        loss = losses_of(criterion, persons, scores, poses)["loss_cir"]
        gradient, through_poses = torch.autograd.grad(loss, [scores, poses], allow_unused=True)
        assert gradient.abs().max() > 0 and through_poses is None


class TestDisplacement:
    def test_is_relative_to_the_extent_of_the_person(self):
        persons = [labeled_persons([(8.0, 8.0)], [1e4], size=(16, 16))]
        targets = QualityTargets.from_persons(persons, (16, 16), 0.0)
        poses = targets.keypoints + torch.tensor([0.5, 0.05])
        scores = torch.zeros(1, 1, 16, 16)
        plain = QualityCriterion(sigmas=COCO_SKELETON.sigmas, scale_norm=False)
        loss = losses_of(plain, persons, scores, poses)["loss_displacement"].item()
        assert loss == pytest.approx((0.444444 + 0.01125) / 2, abs=1e-6)
        scaled = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
        relative = losses_of(scaled, persons, scores, poses)["loss_displacement"].item()
        assert relative == pytest.approx(loss / (6**2 + 12**2) ** 0.5, abs=1e-6)

    def test_a_keypoint_outside_the_image_has_no_target_but_counts_in_center_and_extent(self):
        persons = labeled_persons([(8.0, 1.0)], [1e4], size=(16, 16))
        assert 0 < persons.in_map.sum() < 17
        targets = QualityTargets.from_persons([persons], (16, 16), 0.0)
        torch.testing.assert_close(targets.extents, torch.full_like(targets.extents, 180.0))
        criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas, scale_norm=False)
        off = torch.where(targets.in_map[..., None], 0.0, 99.0)
        scores = torch.zeros(1, 1, 16, 16)
        losses = losses_of(criterion, [persons], scores, targets.keypoints + off)
        assert losses["loss_displacement"] == 0


def test_the_smaller_of_two_persons_owns_a_shared_cell_in_either_order():
    centers, areas = [(30.0, 30.0), (33.0, 30.0)], [5000.0, 2000.0]
    for order in ((0, 1), (1, 0)):
        persons = labeled_persons([centers[i] for i in order], [areas[i] for i in order])
        targets = QualityTargets.from_persons([persons], (128, 128), 0.0)
        assert order[targets.owners[0, 30, 31]] == 1
        assert order[targets.owners[0, 30, 28]] == 0


def test_small_persons_and_those_out_of_sight_own_nothing():
    persons = labeled_persons([(30.0, 30.0), (60.0, 60.0), (500.0, 60.0)], [1000.0, 1e4, 1e4])
    targets = QualityTargets.from_persons([persons], (128, 128), 1024.0)
    assert targets.owners.unique().tolist() == [-1, 1]
    assert targets.gaussians[0, 30, 30] == 0 and targets.gaussians[0, 60, 60] == 1


def test_the_quality_branch_learns_the_oks_at_owned_cells_alone():
    persons = [labeled_persons([(8.0, 8.0)], [1e4], size=(16, 16))]
    criterion = QualityCriterion(
        sigmas=COCO_SKELETON.sigmas, instance_label="gaussian", quality_branch=True
    )
    scores, qualities = torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.5)
    losses = losses_of(criterion, persons, scores, qualities=qualities)
    assert losses["loss_quality"].item() == pytest.approx(0.25)


def test_one_image_does_not_change_for_another_that_joins():
    criterion = QualityCriterion(sigmas=COCO_SKELETON.sigmas)
    first = labeled_persons([(8.0, 8.0)], [1e4], size=(16, 16))
    second = labeled_persons([(20.0, 20.0)], [1e4], size=(32, 32))
    alone = QualityTargets.from_persons([first], (16, 16), 0.0)
    together = QualityTargets.from_persons([first, second], (32, 32), 0.0)
    own = together.cells.images == 0
    torch.testing.assert_close(together.keypoints[own], alone.keypoints)
    torch.testing.assert_close(together.in_map[own], alone.in_map)
    torch.testing.assert_close(together.owners[0, :16, :16], alone.owners[0])
    assert (together.owners[0, 16:] == -1).all() and (together.owners[0, :, 16:] == -1).all()
    assert (together.gaussians[0, 16:] == 0).all()
    sizes = [(64, 64), (128, 128)]
    assert criterion.normalizers(together, sizes)["loss_cir"] == 90
    by_pixel = QualityCriterion(sigmas=COCO_SKELETON.sigmas, cir_reduction="pixel")
    assert by_pixel.normalizers(together, sizes)["loss_cir"] == 16 * 16 + 32 * 32


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"instance_label": "box"}, "INSTANCE_LABEL is one of"),
        ({"cir_reduction": "sum"}, "CIR_REDUCTION is one of"),
        ({"quality_branch": True}, "QUALITY_BRANCH would predict"),
    ],
)
def test_switches_that_make_no_sense_are_refused(switches, message):
    with pytest.raises(ValueError, match=message):
        QualityCriterion(sigmas=COCO_SKELETON.sigmas, **switches)
